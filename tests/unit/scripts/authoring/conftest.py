"""An author's folder of sources, the sample site really served, and ``nearfetch source`` with nothing else set."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scripts.cli import main
from scripts.site.site import Site, origins


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The author's own folder of sources; no other setting of whoever runs the tests."""
    for variable in [name for name in os.environ if name.startswith("NEARFETCH")]:
        monkeypatch.delenv(variable)
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("NEARFETCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("NEARFETCH__SOURCES__PATH", str(own))
    return own


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    """The sample site, on a free port."""
    started = Site().start()
    yield started
    started.stop()


@pytest.fixture
def site(served: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The sample site as what answers for its hosts."""
    monkeypatch.setenv("NEARFETCH__FETCH__ALLOW", f"127.0.0.1:{served.port}")
    monkeypatch.setenv("NEARFETCH__FETCH__ORIGINS", origins(served.port))
    yield served
    served.behaviour.reset()


@pytest.fixture
def source() -> Callable[..., Result]:
    """Runs ``nearfetch source`` with words."""
    return lambda *words: CliRunner().invoke(main, ["source", *map(str, words)])
