"""A worker process like ``python -m jobs.worker`` that dies or stops where a test says, each point once in a region.

A point is armed by a file of its name in the folder $FAULTS, which holds the signal's number. The first process that comes
by takes it away and hurts itself, after it wrote down when, and what it held. Every start of a task is a line of "starts".
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from jobs.fetch.fetcher import Fetcher
from jobs.parse.source import Source
from jobs.queue.claim import Claimer
from jobs.queue.home import Home
from jobs.task.runner import Runner
from jobs.worker.entry import enter, run
from jobs.worker.worker import Worker
from regions import names
from tests.service.working import REGION

FOLDER = Path(os.environ.get("FAULTS", "."))
POINTS = {
    "claim": "its jobs are claimed, the answer is not read",
    "fetch": "the head of the answer came, the body did not",
    "parse": "the page is whole, not parsed",
    "finish": "the tasks ended, the region does not know",
    "ship": "the region has the results, the hub does not",
    "shipped": "the hub has the results, the outbox too",
}


class Faulty:
    """The worker of this process, and where it is hurt."""

    worker: Worker

    def __init__(self) -> None:
        self.hurt, self.is_hurt = threading.Lock(), False

    def hit(self, point: str, claimed: list[str] | None = None) -> None:
        """Hurts this process if the point is armed, and no other thread is about to."""
        taken = FOLDER / f"{point}.taken"
        is_alone = self.worker.queues[0].name == names.suspects(REGION)  # it runs what an earlier hit left
        with self.hurt:
            if self.is_hurt or is_alone:
                return
            try:
                (FOLDER / f"{point}.armed").rename(taken)
            except FileNotFoundError:
                return
            self.is_hurt = True
        held = [job.task for job in self.worker.threads.running()] + (claimed or [])
        said = {"pid": os.getpid(), "worker": self.worker.name, "at": time.time(), "held": held}
        whole = FOLDER / f"{point}.part"
        whole.write_text(json.dumps(said))
        number = int(taken.read_text())
        whole.rename(FOLDER / f"{point}.hit")
        os.kill(os.getpid(), number)

    def install(self) -> None:
        """Wraps what the points are in."""
        claim, finish, begin, end = Claimer.claim, Claimer.finish, Home.begin, Home.end
        page, parse, go = Fetcher._page, Source.parse, Runner.run
        starts = os.open(FOLDER / "starts", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

        def claiming(*args, **kwargs):
            claimed = claim(*args, **kwargs)
            if claimed.jobs:
                self.hit("claim", [job.task for job in claimed.jobs])
            return claimed

        def finishing(*args, **kwargs):
            self.hit("finish")
            return finish(*args, **kwargs)

        def beginning(home, shipments, *args):
            if shipments:
                self.hit("ship")
            return begin(home, shipments, *args)

        def ending(home):
            shipments = home._batches[0].shipments
            is_taken = end(home)
            if shipments and is_taken:
                self.hit("shipped")
            return is_taken

        def fetching(*args, **kwargs):
            self.hit("fetch")
            return page(*args, **kwargs)

        def parsing(*args, **kwargs):
            self.hit("parse")
            return parse(*args, **kwargs)

        def running(runner, execution):
            task = execution.task.task
            os.write(starts, f"{task} {execution.attempt} {os.getpid()} {time.time()}\n".encode())
            return go(runner, execution)

        Claimer.claim, Claimer.finish, Home.begin, Home.end = claiming, finishing, beginning, ending
        Fetcher._page, Source.parse, Runner.run = fetching, parsing, running


def main(argv: list[str]) -> int:
    """A worker process."""
    faulty = Faulty()
    faulty.install()

    def life(settings, region, worker):
        faulty.worker = worker(Runner(settings, region))
        return run(faulty.worker)

    return enter(argv, life)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
