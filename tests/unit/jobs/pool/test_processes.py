"""A worker process that can't be started leaves nothing behind in its pool."""

from pathlib import Path

import pytest

from jobs.pool.processes import Pool, Slot
from regions.settings import Region, Settings


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
