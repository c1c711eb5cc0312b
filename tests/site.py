"""The sample site for a module of tests; each test finds it well-behaved."""

from collections.abc import Iterator

import pytest

from scripts.site.site import Site


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    started = Site().start()
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def _well_behaved(site: Site) -> Iterator[None]:
    yield
    site.behaviour.reset()
