"""The history at the end of a run, as clients see it: every page of the list of finished requests."""

import time
from collections.abc import Iterator
from typing import Final

from scripts.chaos import load
from scripts.chaos.history import Archived, History

READY_SECONDS: Final = 60.0  # until all promised tasks are in it
AGAIN_SECONDS: Final = 0.5


def read(history: History, port: int) -> list[Archived]:
    """Reads the list until it holds every promised task, or time is up."""
    end = time.monotonic() + READY_SECONDS
    found: list[Archived] = []
    while time.monotonic() < end:
        try:
            found = list(pages(port))
        except load.GONE:
            found = []
        if set(history.promises) <= {task for one in found for task, _ in one.tasks}:
            break
        time.sleep(AGAIN_SECONDS)
    return found


def pages(port: int) -> Iterator[Archived]:
    """Every request in the list. Raises what ``load.GONE`` lists."""
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
