"""``nearfetch chaos``: makes a plan, starts a stack of its own, runs the plan on it, and reports."""

import json
import signal
import sys

from scripts.chaos import plan, report, run, scaling
from scripts.chaos.stack import ChaosStack
from scripts.stack.startup import NotReady
from scripts.stack.supervision import NotStarted
from scripts.terminal import Progress


def chaos(seed: int, tasks: int, minutes: float, kinds: list[str], *, scaled: bool, as_json: bool, keep: bool) -> int:
    """Returns 0 when every promise was kept, 1 when one was broken, 130 when it was interrupted."""
    out = sys.stderr if as_json else sys.stdout
    shown = report.Report(out, verbose=not as_json or out.isatty())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    stack = ChaosStack(scaling.environ() if scaled else None, progress=None if as_json else Progress())
    try:
        seconds, regions = minutes * 60, stack.regions
        made = plan.make(seed, tasks=tasks, seconds=seconds, regions=regions, kinds=kinds, scaled=scaled)
        if scaled:
            scaling.add_rules(stack)
        shown.say(
            f"seed {seed}   plan {made.digest}   {len(made.faults)} faults of {len(kinds)} kinds in {minutes:g} min"
        )
        shown.say(f"stack: {stack.folder}")
        stack.start()
        shown.start()
        history, verdict = run.run(stack, made, shown)
        log_lines = report.logged(stack.data.path / "log", verdict)
    except (NotReady, NotStarted) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    finally:
        stack.stop(keep=keep)
    if as_json:
        print(json.dumps(report.as_json(made, history, verdict, log_lines), indent=1))
    else:
        print("\n".join(report.summary(made, history, verdict, log_lines)))
    return 1 if verdict.faults else 0
