"""How a worker process begins: its command line, its settings, and the loop in its main thread."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from functools import partial

import msgspec

from jobs import memory
from jobs.queue.claim import Kind
from jobs.worker import fork_server
from jobs.worker.executor import Runner
from jobs.worker.meter import Meter
from jobs.worker.stop import follow_parent
from jobs.worker.worker import Worker
from regions import logs
from regions.faults import Faults
from regions.settings import Region, Settings, load


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line of a worker process."""
    parser = argparse.ArgumentParser(prog="python -m jobs.worker", description="One worker process of a region.")
    parser.add_argument("region")
    parser.add_argument("name", help="unique in the region")
    parser.add_argument("--settings", choices=["-"], help="read all settings from standard input, as JSON")
    parser.add_argument("--beat", type=int, help="a descriptor that gets a byte on every turn of the loop")
    parser.add_argument("--clock", type=int, help="ms by which the region's clock is ahead of this machine's start")
    parser.add_argument("--meters", type=int, help="a descriptor of the memory where it counts what it does")
    parser.add_argument("--page", type=int, help="its page there")
    parser.add_argument(
        "--of", help="where the settings stand; it only shows in lists of processes whose stack this is"
    )
    parser.add_argument("--fork-server", type=int, help="fork worker processes as requests on this descriptor ask")
    return parser.parse_args(argv)


def enter(argv: list[str], life: Callable[[Settings, Region, Callable[[Runner], Worker]], int]) -> int:
    """The main function of a worker process and of the fork server. Returns the exit code.

    ``life(settings, region, worker)`` makes a runner, calls ``worker`` with it, and runs the worker that it gets.
    """
    options = arguments(argv)

    def begin(name: str, beat: int | None, kind: Kind, page: int | None, ahead_of_boot_ms: int | None) -> int:
        if beat is not None:
            follow_parent()
            os.set_blocking(beat, False)
        meter = Meter()
        if options.meters is not None and page is not None:
            meter = Meter((options.meters, page))
            os.close(options.meters)  # an author's code runs here
        made = partial(
            Worker, settings, region, name, beat=beat, kind=kind, ahead_of_boot_ms=ahead_of_boot_ms, meter=meter
        )
        return life(settings, region, made)

    try:
        given = options.settings == "-"
        settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings) if given else load()
        for variable in os.environ.keys() - fork_server.environment().keys():
            del os.environ[variable]  # an author's code runs here
        memory.tune_allocator()
        logs.configure(settings.log.format, settings.log.level)
        logging.getLogger("rq.worker").setLevel(logging.WARNING)  # importing RQ sets it to info
        region = settings.one(options.region)
        if options.fork_server is not None:
            return fork_server.serve(options.fork_server, begin)
        return begin(options.name, options.beat, "normal", options.page, options.clock)
    except Faults as faults:
        print(faults, file=sys.stderr)
        return os.EX_CONFIG


def run(worker: Worker) -> int:
    """Runs a worker in the main thread until SIGTERM or SIGINT. Returns the exit code."""
    worker.stop.install()
    worker.run()
    worker.stop.ignore()
    return 0
