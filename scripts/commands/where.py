"""``nearfetch where``: each hop of a task, with its time since the accept, its place and its attempt; or all tasks of a request."""

from typing import Any

from regions.printable import printable
from scripts.stack.gateway_client import GatewayClient, Refused
from scripts.terminal import counted, duration, say, say_json

PLACE_WIDTH = 24
GONE = (404, 410)


def run(client: GatewayClient, id_: str, *, as_json: bool) -> int:
    """Returns 0, whatever became of the task. Raises ``Refused`` when neither a task nor a request has this id, and ``NoGateway``."""
    try:
        found = client.get(f"/v1/tasks/{id_}")
    except Refused as refused:
        if refused.status not in GONE:
            raise
        return _request(client, id_, refused, as_json=as_json)
    if as_json:
        say_json(found)
        return 0
    show(found)
    return 0


def _request(client: GatewayClient, id_: str, unknown: Refused, *, as_json: bool) -> int:
    """The tasks of a request: all hops of a single one, else a line or two for each."""
    try:
        request = client.get(f"/v1/requests/{id_}")
    except Refused as refused:
        raise (unknown if refused.status in GONE else refused) from None
    tasks = [_task(client, request["id"], task) for task in request["tasks"]]
    if as_json:
        say_json(
            {**{key: request[key] for key in ("id", "status", "total", "completed", "created_at")}, "tasks": tasks}
        )
        return 0
    say(
        f"request {request['id']}  {request['status']}, {request['completed']} of {counted(request['total'], 'task')} ended"
    )
    for task in tasks:
        if len(tasks) == 1 and task["hops"]:
            show(task)
        else:
            show_short(task)
    return 0


def _task(client: GatewayClient, request: str, task: dict[str, Any]) -> dict[str, Any]:
    """Where a task is; what the request says of it if its hops are not kept any more."""
    try:
        found: dict[str, Any] = client.get(f"/v1/requests/{request}/tasks/{task['id']}")
    except Refused as refused:
        if refused.status not in GONE:
            raise
        return {**task, "hops": [], "attempts": [], "error": None}
    return found


def show(found: dict[str, Any]) -> None:
    """All hops of a task, and its error."""
    say("  ".join(headline(found)))
    width = max((len(hop["where"]) for hop in found["hops"]), default=PLACE_WIDTH)
    for hop in found["hops"]:
        say(printable(line(hop, width).rstrip()))
    if found["error"]:
        error = found["error"]
        say(printable(f"  {error['type']} ({error['origin']}): {error['message']}"))


def show_short(found: dict[str, Any]) -> None:
    """A task in a line: where it is now, or how it ended; then what it waited for, each failed attempt, and its error."""
    say(f"  {'  '.join(headline(found))}")
    width = max((len(hop["where"]) for hop in found["hops"]), default=PLACE_WIDTH)
    telling = [hop for hop in found["hops"] if hop["hop"] in TOLD]
    if not found["error"] and found["status"] in OPEN:
        telling = [*telling, *[hop for hop in found["hops"][-1:] if hop not in telling]]
    for hop in telling:
        say(printable(f"  {line(hop, width).rstrip()}"))
    if found["error"]:
        error = found["error"]
        say(printable(f"    {error['type']} ({error['origin']}): {error['message']}"))


TOLD = ("waited", "joined", "lost", "put back", "failed", "moved")  # hops that say why a task took its time
OPEN = ("queued", "running")


def headline(found: dict[str, Any]) -> list[str]:
    """The first line: id, source, region, status, attempts, and the time so far."""
    status = found["status"]
    if found["attempts"]:
        status += f", {counted(len(found['attempts']), 'attempt')}"
    if found["hops"]:
        status += f", {duration(found['hops'][-1]['after_ms'] / 1000)}"
    return [found["id"], found["source"], found["region"], status]


def line(hop: dict[str, Any], width: int) -> str:
    """The line of a hop."""
    attempt = f"attempt {hop['attempt']}" if hop["hop"] == "claimed" else ""
    rest = "   ".join(part for part in (attempt, hop.get("note", "")) if part)
    return f"  {hop['after_ms'] / 1000:+9.3f}  {hop['hop']:<10} {hop['where']:<{width}}   {rest}"
