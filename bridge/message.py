"""Decodes AMQP messages: tasks, cancels, and unreadable ones."""

import re
from typing import Final

from pika import BasicProperties

from jobs import contract, errors, result_frame

JOB_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")  # ids that RQ accepts


class Unreadable(ValueError):  # noqa: N818 - it names what was found
    """A message is neither a task for this region nor a cancel. Its text says what was expected and what was found."""


def read(region: str, properties: BasicProperties, body: bytes) -> contract.Task | contract.Cancel:
    """The content of a message. Raises ``Unreadable``."""
    kind = properties.type or ""
    if kind not in ("task", "cancel"):
        raise Unreadable(f'expected a message of type "task" or "cancel", found "{kind[:64]}"')
    try:
        message = contract.decode_task(body) if kind == "task" else contract.decode_cancel(body)
    except ValueError as error:
        raise Unreadable(f"{kind}: {error}") from error
    except RecursionError as error:
        raise Unreadable(f"{kind}: expected JSON, found it nested too deeply") from error
    if isinstance(message, contract.Task) and message.region != region:
        raise Unreadable(f'expected a task for region "{region}", found one for "{message.region[:64]}"')
    if not JOB_ID.fullmatch(message.task):
        raise Unreadable(f'expected a task id of letters, digits, "-" and "_", found "{message.task[:64]}"')
    return message


def failed(
    region: str, properties: BasicProperties, reason: str, *, now_ms: int, ttl_ms: int
) -> contract.Outcome | None:
    """The outcome of an unreadable message, with the ids from its AMQP properties. None when nobody waits for it.

    That is so for a cancel, and without both ids. ``now_ms`` is on the hub's clock. The result is kept for ``ttl_ms``, since
    the message's own expiry can't be read either.
    """
    task, request = properties.message_id or "", properties.correlation_id or ""
    if properties.type == "cancel" or not JOB_ID.fullmatch(task) or not JOB_ID.fullmatch(request):
        return None
    result = contract.Result(task=task, source="", region=region, status="failed", attempts=0)
    frame = result_frame.failed(result, errors.Internal(f"the region can't read this task: {reason}"))
    return contract.Outcome(
        request=request, task=task, status="failed", finished_ms=now_ms, expires_ms=now_ms + ttl_ms, frame=frame
    )
