"""Every promise has a patch that takes its guard out, and it still applies (tests.promises.unguarded does the rest)."""

import pytest

from regions.settings import ROOT
from tests.promises import unguarded

PROMISES = sorted(file.stem.removeprefix("test_") for file in (ROOT / "tests" / "promises").glob("test_*.py"))


def test_every_promise_has_a_patch_and_every_patch_a_promise():
    assert unguarded.names() == PROMISES


@pytest.mark.parametrize("name", unguarded.names())
def test_a_patch_applies_and_touches_the_product_only(name):
    assert unguarded.apply(ROOT, name, check_only=True) == ""
    text = (ROOT / "tests" / "promises" / f"{name}.patch").read_text()
    touched = {line.split("/", 1)[1] for line in text.splitlines() if line.startswith("+++ ")}
    assert touched
    assert {file.split("/")[0] for file in touched} <= {"bridge", "jobs", "regions", "web"}
