"""The history at the end of a run, as its clients see it: every page of the list of finished requests."""

import time
from collections.abc import Iterator
from typing import Final

from scripts.chaos import load
from scripts.chaos.history import Archived, History

READY_SECONDS: Final = 60.0  # until all that was promised is there
AGAIN_SECONDS: Final = 0.5


def read(history: History, port: int) -> list[Archived]:
    """What is listed, once it holds every promised task, or when time is over; at once where the run has failed already."""
    end = time.monotonic() + READY_SECONDS
    found: list[Archived] = []
    while time.monotonic() < end:
        try:
            found = list(pages(port))
        except load.GONE:
            found = []
        if history.is_doubled or set(history.promises) <= {task for one in found for task, _ in one.tasks}:
            break
        time.sleep(AGAIN_SECONDS)
    return found


def pages(port: int) -> Iterator[Archived]:
    """Every request; raises ``load.GONE``'s."""
    client, cursor = load.Client(port), ""
    try:
        while True:
            status, answer = client.ask("GET", f"/v1/requests{cursor}")
            if status != 200:
                raise ConnectionError(f"answered {status}")
            for one in answer["requests"]:
                yield Archived(one["id"], one["status"], [(task["id"], task["status"]) for task in one["tasks"]])
            if answer["cursor"] is None:
                return
            cursor = f"?cursor={answer['cursor']}"
    finally:
        client.close()
