"""What a gateway promised to the tests, kept outside of it: which tasks it accepted, and which requests it refused."""

import contextlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.wire import ask

GONE = (OSError, ValueError)  # no complete answer


@dataclass
class Ledger:
    """Reads the results of what was promised, and compares their ids with it. ``stack`` is anything that has a ``port``."""

    may_break: ClassVar[bool] = False  # whether connections may be cut

    stack: Any
    promised: dict[str, dict[str, int]] = field(default_factory=dict)  # request → its tasks, with the number of each
    refused: list[str] = field(default_factory=list)  # requests
    refusals: list[float] = field(default_factory=list)  # seconds that each 503 took

    def send(self, sources: Sequence[object], numbers: Sequence[int] = (), **options) -> str | None:
        """Posts a request: its id if it was accepted, None if it was refused with 503."""
        started = time.monotonic()
        reply = ask(self.stack.port, "POST", "/v1/requests", body={"sources": sources, **options})
        answer = reply.json()
        if reply.status == 503:
            self.refusals.append(time.monotonic() - started)
            if "request" in answer:
                self.refused.append(answer["request"])
            return None
        assert reply.status == 202, answer
        return self.note(answer, numbers)

    def note(self, answer: dict[str, Any], numbers: Sequence[int] = ()) -> str:
        """Notes what the answer to a post promises; the id of the request."""
        tasks = [task["id"] for task in answer["tasks"]]
        self.promised[answer["id"]] = dict(zip(tasks, numbers or range(len(tasks)), strict=True))
        return answer["id"]

    def results(self, request: str, seconds: float = 150.0) -> list[dict]:
        """All results of a request, read by cursor until it is done.

        A server that takes half a second to answer counts as away, and so a read is a 503: that is asked again until the time is over.
        """
        deadline = time.monotonic() + seconds
        cursor, is_over, found = "0-0", False, []
        while not is_over:
            assert time.monotonic() < deadline, f"request {request} is not done after {seconds:g} s: {found}"
            reply = None
            with contextlib.suppress(*(GONE if self.may_break else ())):
                reply = ask(self.stack.port, "GET", f"/v1/requests/{request}?after={cursor}&wait=5")
            if reply is not None and reply.status == 200:
                answer = reply.json()
                found += answer["results"]
                # At once: a task that ends twice counts twice, and its request may never be done.
                assert len(found) == len({one["task"] for one in found}), f"doubled in {request}"
                cursor, is_over = answer["cursor"], answer["done"] and not answer["more"]
            else:
                assert reply is None or reply.status == 503, reply
                time.sleep(0.1)
        return found


def judge(results: Sequence[dict], promised: Collection[str]) -> None:
    """Every promised task has a result, and one only, which succeeded; nothing else came."""
    ids = [result["task"] for result in results]
    lost, unexpected = set(promised) - set(ids), set(ids) - set(promised)
    assert not lost | unexpected, f"lost {lost}, unexpected {unexpected}"
    assert len(ids) == len(set(ids)), "doubled"
    bad = {one["task"]: (one["status"], one["error"]) for one in results if one["status"] != "succeeded"}
    assert not bad, f"not succeeded: {bad}"
