"""``nearfetch where``: each hop of a task, with its time since the accept, its place and its attempt."""

from typing import Any

from regions.printable import printable
from scripts.stack.gateway_client import GatewayClient
from scripts.terminal import counted, duration, say, say_json

PLACE_WIDTH = 24


def run(client: GatewayClient, task: str, *, as_json: bool) -> int:
    """Returns 0, whatever became of the task. Raises ``Refused`` when it is unknown, and ``NoGateway``."""
    found = client.get(f"/v1/tasks/{task}")
    if as_json:
        say_json(found)
        return 0
    say("  ".join(headline(found)))
    width = max((len(hop["where"]) for hop in found["hops"]), default=PLACE_WIDTH)
    for hop in found["hops"]:
        say(printable(line(hop, width).rstrip()))
    if found["error"]:
        error = found["error"]
        say(printable(f"  {error['type']} ({error['origin']}): {error['message']}"))
    return 0


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
