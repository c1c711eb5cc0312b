"""``nearfetch bench``: what takes part is started, measured in turn, and compared."""

import json
import signal
import sys

from scripts.bench import report
from scripts.bench.figures import Unfair
from scripts.bench.load import Wrong
from scripts.bench.peer_stack import PeerPool
from scripts.bench.rows import ROWS
from scripts.bench.run import Bench, Plan
from scripts.data_folder import default_path
from scripts.services import Failed
from scripts.startup import NotReady
from scripts.supervision import NotStarted
from scripts.terminal import Progress, Quiet

UNFAIR = 4
QUICK_ROWS = ("tiny", "page")
QUICK_ROUNDS, ROUNDS = 3, 5


def bench(names: list[str], rounds: int | None, *, quick: bool, as_json: bool) -> int:
    """0 when everything was measured, 1 when something did not start or answered wrongly, 4 when it is no fair comparison."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    chosen = [ROWS[name] for name in names or (QUICK_ROWS if quick else ROWS)]
    progress = Quiet() if as_json else Progress()
    plan = (
        Plan(chosen, rounds or QUICK_ROUNDS, seconds=2.0, warm_seconds=1.0, floor_seconds=2.0, calls=100)
        if quick
        else Plan(chosen, rounds or ROUNDS, seconds=6.0, warm_seconds=2.0, floor_seconds=4.0, calls=300)
    )
    try:
        with Bench(plan, progress, default_path() / "bench") as found:
            settings = {"ours": list(found.ours.settings()), "Celery": list(PeerPool.settings())}
            for side, told in settings.items():
                progress.line(side)
                for line in told:
                    progress.line(f"  {line}")
            found.run()
    except (Failed, NotReady, NotStarted, Wrong) as error:
        print(error, file=sys.stderr)
        return 1
    except Unfair as error:
        print(error, file=sys.stderr)
        return UNFAIR
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    if as_json:
        print(json.dumps(report.as_json(found.rows, found.idle_ms_per_second, settings), indent=1))
    else:
        for line in report.lines(found.rows, found.idle_ms_per_second):
            progress.line(line)
    return 0
