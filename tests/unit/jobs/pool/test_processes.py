"""A pool and its processes: one that can't be started leaves nothing behind, and all are told of changed definitions."""

import errno
import os
import sys
from pathlib import Path

import pytest

from jobs.pool.child import CHANGED, Slot
from jobs.pool.processes import Pool
from regions.settings import Region, Settings
from tests.waiting import until

# It sends back what it is told. Its settings come first.
ECHO = "import os, sys; sys.stdin.read(); beat = int(sys.argv[sys.argv.index('--beat') + 1]); os.write(beat, os.read(beat, 9))"


def descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("kind", ["normal", "urgent"])
def test_a_process_that_can_not_start_leaves_no_descriptor_and_gives_its_page_back(kind):
    """The pool goes on: its place waits, longer each time."""
    region = Region(name="fra")
    pool = Pool(Settings(region={"fra": region}), region, ("/nowhere/python",))
    with pool._waker, pool._woken:
        before, slot = descriptors(), Slot(1, kind)
        for failures in (1, 2, 3):
            pool._start(slot)
            assert (slot.child, slot.failures) == (None, failures)
            assert slot.not_before > 0
        assert descriptors() == before
    assert pool._metrics.pages.take() == 0


def test_a_process_for_whose_counts_there_is_no_memory_leaves_no_descriptor(monkeypatch):
    region = Region(name="fra")
    pool = Pool(Settings(region={"fra": region}), region, (sys.executable, "-c", ECHO))

    def refuse(_descriptor: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "no memory")

    monkeypatch.setattr(os, "ftruncate", refuse)
    with pool._waker, pool._woken:
        before = descriptors()
        pool._start(Slot(1))
        assert descriptors() == before


def test_a_pool_that_can_not_look_at_its_processes_memory_goes_on(monkeypatch):
    region = Region(name="fra")
    pool = Pool(Settings(region={"fra": region}), region, (sys.executable, "-c", ECHO))

    def refuse(_folder) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    with pool._waker, pool._woken:
        monkeypatch.setattr(os, "scandir", refuse)
        pool._check_memory()


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


def test_only_a_turn_that_was_told_of_something_makes_the_next_one_pause(monkeypatch):
    """A pause in each turn would wake an idle pool twice a turn."""
    region, pauses = Region(name="fra"), []
    pool = Pool(Settings(region={"fra": region}), region, ("/nowhere/python",))
    monkeypatch.setattr("jobs.pool.processes.time.sleep", pauses.append)
    with pool._waker, pool._woken:
        pool._watch()
        pool._watch()
        assert not pauses
        pool._wake()
        pool._watch()
        pool._watch()
        assert len(pauses) == 1
