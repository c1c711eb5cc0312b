"""The server alone, as its tests start it."""

from collections.abc import Callable, Iterator

import pytest

from tests.service.bare_server import Site


@pytest.fixture
def start_site() -> Iterator[Callable[..., Site]]:
    """Starts sites; keywords are those of ``Site``."""
    sites: list[Site] = []

    def start(**options) -> Site:
        sites.append(Site(**options))
        return sites[-1]

    yield start
    for site in sites:
        site.stop()


@pytest.fixture
def site(start_site: Callable[..., Site]) -> Site:
    """One with eight threads."""
    return start_site()
