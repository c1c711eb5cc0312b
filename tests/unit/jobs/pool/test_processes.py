"""A pool and its processes: one that can't be started leaves nothing behind, and all are told of changed definitions."""

import sys
from pathlib import Path

import pytest

from jobs.pool.processes import CHANGED, Pool, Slot
from regions.settings import Region, Settings
from tests.waiting import until

# It sends back what it is told. Its settings come first.
ECHO = "import os, sys; sys.stdin.read(); beat = int(sys.argv[sys.argv.index('--beat') + 1]); os.write(beat, os.read(beat, 9))"


def descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def test_a_process_that_can_not_start_leaves_no_descriptor_and_gives_its_page_back():
    region = Region(name="fra")
    pool = Pool(Settings(region={"fra": region}), region, ("/nowhere/python",))
    with pool._waker, pool._woken:
        before, slot = descriptors(), Slot(1)
        for _ in range(3):
            with pytest.raises(FileNotFoundError):
                pool._start(slot)
        assert descriptors() == before
    assert slot.child is None
    assert pool._metrics.pages.take() == 0


def test_a_process_is_told_once_that_definitions_have_changed():
    region = Region(name="fra")
    pool = Pool(Settings(region={"fra": region}), region, (sys.executable, "-c", ECHO))
    with pool._waker, pool._woken:
        pool._slots = [Slot(1)]
        pool._start(pool._slots[0])
        child = pool._slots[0].child
        pool._have_changed()
        pool._tell()
        pool._tell()
        said = b""
        until(lambda: child.process.poll() is not None, "its end")
        while beats := child.beats():
            said += beats
        assert said == CHANGED
        child.tell()  # it is gone
        pool._remove(pool._slots[0], child)
