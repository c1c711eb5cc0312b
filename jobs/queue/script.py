"""How the scripts of the region's Redis are loaded, and sent by the region's clock. They stand in ``jobs/queue/lua``.

Their time is the region's (jobs.queue.clock), even if somebody stepped the Redis's clock meanwhile. A script names the constants of
this module and of ``regions.names`` as Python does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import redis

from jobs.contract import KEEP_MS
from jobs.queue.clock import LEASE_MS, REFUSED, clock_of, machine_ms
from regions import names, script
from regions.lua_files import Folder
from regions.script import value

OUTBOX_MAX_BYTES: Final = 64_000_000
SKIPPED_MAX: Final = 1_000  # late or cancelled jobs that one claim drops, so that it never holds its Redis for long
DUE_MAX: Final = 500  # waiting jobs that are moved at once, for the same reason
LATER: Final = "later"  # stands for an entry in the outbox where a job was put off instead
URGENT_SEEN_MS: Final = 10_000  # for which a region counts as one whose clients wait, after each urgent task
URGENT_LEASE_MS: Final = 3_000  # of the process for urgent tasks: it claims at least every 1.5 s
DEATHS_MAX: Final = 3  # of processes that ran a job; then it is poison
ALONE_MAX: Final = 16  # suspects that run at once in a region, each in a process of its own
FAR_SECONDS: Final = 365 * 86_400
WAITING_MAX: Final = 1_000  # tasks that wait for one host
ROOM_MS: Final = 1_000  # between a turn and the deadline at least: less helps nobody
AT_ONCE_DEFAULT: Final = 8  # fetches of a host at once if no source says
TRY_MS: Final = 30_000  # for which the one try of an open host keeps all others waiting
SHARE_MAX: Final = 1_000  # tasks that are told of an answer at once, so that an end never holds its Redis for long
SHARE_TTL_MS: Final = 60_000  # of an answer that no task takes: a later task asks again
LATE_TTL_MS: Final = 10_000  # the same if others that want it are known to stand in the queue
CARRIED_MAX_BYTES: Final = 8_000_000  # of answers that one claim brings along
CACHED_MAX_BYTES: Final = 32_000_000  # of good answers that are kept
CACHED_EACH_BYTES: Final = 500  # that one takes besides its frame
CACHED_TTL_MS: Final = 7 * 86_400_000
ASKING: Final = 10**15  # added to a time in a host's turns: a running task that asks for one, and has none yet
HOST_TTL_MS: Final = 2 * 3_600_000  # what is known of a host that no task asks
# Ended jobs of a kind whose whole records are kept: some 10 MB, of failed ones three times that.
LATEST_MAX: Final = 5_000
WORKER_TTL_SECONDS: Final = 120  # RQ's record of a process that no longer claims
NO_CALL: Final = f'["{names.JOB_FUNCTION}", null, [], {{}}]'  # RQ reads it as a job that asks for nothing

ANY_TIME: Final = b"any time"  # stands for when a call may be run, until it is sent

_others: Final[dict[str, str | int]] = {
    "KEEP_MS": KEEP_MS,
    "LEASE_MS": LEASE_MS,
    "REFUSED": REFUSED,
    "JOB": names.rq_job(""),
    "EXECUTION": names.rq_execution("", "").rstrip(":") + ":",
    "EXECUTIONS": names.rq_executions(""),
    "RESULTS": names.rq_results(""),
    "CANCEL_MARK": names.cancel_mark(""),
    "HOST": names.host(""),
    "TURNS": names.turns(""),
    "LINE": names.line(""),
    "ROUNDS": names.rounds(""),
    "FLIGHT": names.flight(""),
    "JOINED": names.joined(""),
    "SHARED": names.shared(""),
    "LANDING": names.landing(""),
    "CACHE": names.cache(""),
}
_constants: Final[dict[str, str | int]] = _others | {
    name: constant
    for name, constant in (vars(names) | globals()).items()
    if name.isupper() and isinstance(constant, str | int)
}
_folder: Final = Folder(Path(__file__).with_name("lua"), _constants, first="clock")


class Script(script.Script):
    """A script of the region's Redis. It runs also at ``maxmemory``: it lets a Redis drain."""

    _suffix = (ANY_TIME,)  # ``send`` replaces it by the time at which the caller expects the call to be run

    def call(self, client: redis.Redis, /, **given: Any) -> Any:
        """As the other scripts', by the region's clock."""
        return value(send(client, [self.command(**given)], [self])[0])


def load(name: str, **rows: type[Any]) -> Script:
    """The script of a file in ``jobs/queue/lua``; ``rows`` as ``regions.lua_files.Folder.read``."""
    return Script(_folder.read(name, flags="", **rows))


def compose(text: str) -> Script:
    """A script that is no file."""
    return Script(_folder.compose(text))


def send(
    client: redis.Redis,
    commands: Sequence[tuple[Any, ...]],
    scripts: Sequence[script.Script],
    *,
    wait_seconds: float = 0.0,
) -> list[Any]:
    """As ``regions.script.send``, with scripts that refuse to run at another time than the caller expects.

    ``wait_seconds``: for which the commands before them may block. After a refusal the region's clock is mended, and what
    was refused is sent again.
    """
    clock = clock_of(client)
    replies = script.send(client, _timed(commands, clock.expected(wait_seconds)), scripts)
    refused = [i for i, reply in enumerate(replies) if _is_refusal(reply)]
    if refused:
        clock.mend(client)
        again = _timed([commands[i] for i in refused], clock.expected(0.0))
        for i, reply in zip(refused, script.send(client, again, scripts), strict=True):
            replies[i] = reply
    return replies


NOW: Final = load("region_now")


def now_ms(client: redis.Redis) -> int:
    """The region's time, which this process then knows. Raises what redis-py raises."""
    asked_ms = machine_ms()
    found = int(NOW.call(client))
    clock_of(client).note(found, asked_ms)
    return found


def _timed(commands: Sequence[tuple[Any, ...]], expected: str) -> list[tuple[Any, ...]]:
    return [(*command[:-1], expected) if command[-1] is ANY_TIME else command for command in commands]


def _is_refusal(reply: Any) -> bool:
    return isinstance(reply, redis.exceptions.ResponseError) and str(reply).startswith(REFUSED)
