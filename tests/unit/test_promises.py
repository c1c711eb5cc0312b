"""Every promise has a patch that takes its guard out, and it still applies (tests.promises.unguarded does the rest)."""

import re

import pytest

from regions.settings import ROOT
from tests.promises import unguarded
from tests.promises.driving import cannot_be_tried

FOLDER = ROOT / "tests" / "promises"
PROMISES = sorted(file.stem.removeprefix("test_") for file in FOLDER.glob("test_*.py"))


def test_every_promise_has_a_patch_and_every_patch_a_promise():
    assert sorted({unguarded.promise_of(name) for name in unguarded.names()}) == PROMISES


def test_the_document_names_each_promise_with_its_patches():
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    listed = {test.strip("| `"): re.findall(r"`([\w.]+)`:", patches) for test, *_, patches in rows}
    known = {
        promise: [name for name in unguarded.names() if unguarded.promise_of(name) == promise] for promise in PROMISES
    }
    assert {promise: sorted(patches) for promise, patches in listed.items()} == known


@pytest.mark.parametrize("name", unguarded.names())
def test_a_patch_applies_and_touches_the_product_only(name):
    assert unguarded.apply(ROOT, name, check_only=True) == ""
    touched = {line.split("/", 1)[1] for line in unguarded.text_of(name)[1].splitlines() if line.startswith("+++ ")}
    assert touched
    assert {file.split("/")[0] for file in touched} <= {"bridge", "jobs", "regions", "web"}


@pytest.mark.parametrize("name", unguarded.names())
def test_a_patch_names_the_tests_that_fail_by_it_and_what_they_say(name):
    wanted, _ = unguarded.text_of(name)
    assert wanted, "expected lines like: Fails: test_a_name: a regular expression"
    tests = (FOLDER / f"test_{unguarded.promise_of(name)}.py").read_text()
    for test, reason in wanted:
        assert f"def {test}(" in tests
        assert re.compile(reason)


def test_no_two_patches_take_out_the_same():
    lines = [
        "".join(re.findall(r"^[+-][^+-].*$", unguarded.text_of(name)[1], re.MULTILINE)) for name in unguarded.names()
    ]
    assert len(set(lines)) == len(lines)


def test_a_test_that_fails_for_another_reason_does_not_count():
    found = unguarded.Outcome([("test_a[1]", "AssertionError: lost 3"), ("test_b", "doubled")], [], [])
    assert found.fails("test_a", r"lost \d")
    assert not found.fails("test_a", "doubled")
    assert not found.fails("test_c", "lost")


def test_a_promise_that_can_not_be_tried_fails_in_ci_and_is_skipped_elsewhere(monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="a promise was not tried: no cron"):
        cannot_be_tried("no cron")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no cron"):
        cannot_be_tried("no cron")
