"""One task's life, from its claim to its result: know the source, ask, fetch, parse, check, encode.

``run`` is the function that jobs name on the wire, so that RQ's tools show it; only our worker runs it.
"""

from collections.abc import Mapping
from typing import Any, NoReturn


def run(task: Mapping[str, Any], offset_ms: int) -> NoReturn:
    """Refuses: a job of this name is run by ``nearfetch workers``, which claims, fences and finishes it.

    A stock RQ worker would import and call this, and would report the result nowhere.
    """
    what = f"{task.get('source')} of request {task.get('request')}, {offset_ms} ms"
    raise RuntimeError(f"expected a worker of Nearfetch (nearfetch workers REGION), found RQ's own: {what}")
