"""Which tests of the suite share a process is told by names of files."""

from regions.settings import ROOT
from tests import conftest


def test_each_file_that_is_named_is_there():
    named = {*conftest.SHARED, *conftest.ALONE, *conftest.LONG} - {*conftest.SHARED.values(), *conftest.WITH_ONE_STACK}
    assert [name for name in sorted(named) if not (ROOT / "tests" / f"{name}.py").is_file()] == []


def test_a_file_shares_by_its_path_and_not_by_its_name():
    assert conftest.shares(ROOT / "tests/promises/test_takeover.py") == "third stack"
    assert conftest.shares(ROOT / "tests/service/web/flow/test_takeover.py") == "service/web/flow/test_takeover"
    assert conftest.shares(ROOT / "tests/promises/test_backpressure.py") == "promises"
    assert conftest.shares(ROOT / "tests/promises/test_bombs.py") == "promises/test_bombs"
