"""Broker crash: what RabbitMQ confirmed survives ``kill -9``, and everything goes on by itself."""

import signal
import time

from scripts.stack.probes import listens
from tests.promises.driving import Ledger, Poster
from tests.waiting import until

RESUME_SECONDS = 30.0  # from the broker's kill, or on a busy machine from its return
START_SECONDS = 150.0  # of a broker


def test_what_was_confirmed_survives_a_killed_broker_and_posting_goes_on_within_30_s(stack):
    """Frozen first, so that posts are on their way which it never confirms; then killed; the supervisor starts it again."""
    ledger = Ledger(stack)
    with Poster(ledger, stack.regions) as poster:
        until(lambda: poster.accepted_at, "the first accept")
        stack.signal("rabbitmq", signal.SIGSTOP)
        until(lambda: len(ledger.refused) >= 2, "refusals")
        pid = stack.pid("rabbitmq")
        stack.signal("rabbitmq", signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: stack.pid("rabbitmq") not in (0, pid), "another broker")
        until(lambda: listens(stack.ports.broker)() is None, "the broker to be there", START_SECONDS)
        until(lambda: poster.accepted_since(killed), "posts to be accepted again", RESUME_SECONDS)
    print(f"accepted again after {time.monotonic() - killed:.1f} s; {len(ledger.promised)} accepted")
    ledger.check()
