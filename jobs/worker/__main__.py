"""``python -m jobs.worker REGION NAME``: one worker process of a region. Only this file knows what the loop runs."""

import sys
from collections.abc import Callable

from jobs.answers.cache import Cache
from jobs.answers.store import AnswerStore
from jobs.task.rehearsal import rehearse
from jobs.task.runner import Runner
from jobs.worker import executor
from jobs.worker.entry import enter, run
from jobs.worker.worker import Worker
from regions import connect
from regions.settings import Region, Settings


def main(argv: list[str]) -> int:
    """Runs tasks with the region's cache and answer store until it is stopped. Returns the exit code."""

    def life(settings: Settings, region: Region, worker: Callable[[executor.Runner], Worker]) -> int:
        store = AnswerStore(region.raw)
        runner = Runner(settings, region, store=store, cache=Cache(connect.open_redis(region.redis.url, name="cache")))
        rehearse(settings, region)
        store.start()
        code = run(worker(runner))
        store.close()
        return code

    return enter(argv, life)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
