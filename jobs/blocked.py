"""Which threads of a worker process wait for a host, a turn or memory, and need no processor meanwhile.

A thread pool claims by what its process can compute (jobs.worker.thread_pool): a waiting thread costs nothing, while
one that computes holds the interpreter, which all threads need.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

threads: Final[set[int]] = set()  # their idents; ``add`` and ``discard`` are atomic


@contextmanager
def blocked() -> Iterator[None]:
    """The calling thread waits inside the block. Blocks may nest: the outermost counts."""
    me = threading.get_ident()
    if me in threads:
        yield
        return
    threads.add(me)
    try:
        yield
    finally:
        threads.discard(me)
