"""One task's life, from its claim to its result.

    execution    what a worker hands over
    runner       the steps: know the source, begin, ask, check, encode, conclude
    sources      the definition that a task runs by
    asking       every page: fetch, parse
    life         the record that the steps fill, and how it ends
    rehearsal    made-up tasks, before a process claims its first one

``run`` is the function that jobs name on the wire, so that RQ's tools show it. Only Nearfetch's own worker runs such jobs.
"""

from collections.abc import Mapping
from typing import Any, NoReturn


def run(task: Mapping[str, Any], offset_ms: int) -> NoReturn:
    """Raises RuntimeError: only a stock RQ worker calls this, and it would report the result nowhere.

    ``nearfetch workers`` claims, fences and finishes jobs of this name without calling the function.
    """
    what = f"{task.get('source')} of request {task.get('request')}, {offset_ms} ms"
    raise RuntimeError(f"expected a worker of Nearfetch (nearfetch workers REGION), found RQ's own: {what}")
