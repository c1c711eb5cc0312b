"""What others wrote, as a person reads it: a terminal finds nothing in it that it would obey."""

import ast
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.errors import TaskError
from jobs.task.life import shortened
from regions.printable import printable, printable_json
from regions.settings import ROOT
from scripts.cli import main
from scripts.terminal import shown
from tests.unit.scripts.commands.test_fetch import Gateway, result

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\x7f\u202etxt.exe"
WRITTEN = r"\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\x7f\u202etxt.exe"


@given(st.text() | st.text("\x00\x1b\x9b\n\r\u202e\ud800\U0001f600aé"), st.integers(1, 20))
@example(HOSTILE, 20)
def test_any_text_is_one_line_that_is_not_much_longer(text, most):
    found = printable(text, most)
    assert found.isprintable()
    assert len(found) <= 10 * most + 1
    if text.isprintable() and len(text) <= most:
        assert found == text


def test_what_is_not_printable_is_its_escape():
    assert printable(HOSTILE) == WRITTEN
    assert printable("Zürich 東京", 8) == "Zürich 東…"


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
@example(HOSTILE)
def test_json_means_the_same(value):
    text = printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert not set(text) & {"\x1b", "\x9b", "\x7f", "\u202e", "\n"}


def test_an_error_and_a_warning_repeat_a_page_without_its_control_characters():
    assert str(TaskError(f"expected a price, found {HOSTILE}")) == f"expected a price, found {WRITTEN}"
    assert len(str(TaskError("x" * 60_000))) < 2_100
    assert shortened([HOSTILE, HOSTILE]) == [f"{WRITTEN} (2 times)"]


def test_only_a_word_in_our_own_colour_reaches_a_terminal():
    assert (
        shown("\x1b[32mup      \x1b[0m  fra\n  \x1b[31mdown\x1b[0m")
        == "\x1b[32mup      \x1b[0m  fra\n  \x1b[31mdown\x1b[0m"
    )
    assert shown("a\n\x1b[2Jb\x1b[8mc\x1b[0m\td") == "a\n\\x1b[2Jb\\x1b[8mc\\x1b[0m\\td"


@pytest.mark.parametrize("words", [["fetch", "a.b"], ["fetch", "--json", "a.b"], ["fetch", "--ndjson", "a.b"]])
def test_a_failure_that_says_what_a_page_said_is_shown(words):
    gateway = Gateway()
    gateway.results = [
        result("a.b", status="failed", records=[], error={"type": "connection", "message": HOSTILE}),
        result("a.b", records=[{"text": HOSTILE}], warnings=[HOSTILE]),
    ]
    done = CliRunner().invoke(main, [words[0], "--url", gateway.url, *words[1:]], color=True)
    gateway.stop()
    assert done.exit_code == 1
    assert "owned" in done.output
    assert not {one for one in done.output if not one.isprintable()} - {"\n"}


def test_commands_write_for_people_in_one_way():
    """What writes past it writes CSV, TOML, a shell's own words or what ``rich`` drew."""
    others = {"completion", "day", "config", "fetch", "source_try", "cli", "terminal"}
    writers = {"echo", "secho", "echo_via_pager"}
    found = set()
    for path in (ROOT / "scripts").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in writers:
                found.add(path.stem)
    assert found <= others


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_log_line_for_people_shows_them_too(log_format):
    program = f"""
import logging
from regions import logs
logs.configure({log_format!r}, "info")
logs.get("worker").info("failed", why={HOSTILE!r})
try:
    raise ValueError({HOSTILE!r})
except ValueError:
    logging.getLogger("somebody").exception("said %s", {HOSTILE!r})
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True)
    found = done.stderr.decode()
    assert found.count("owned") >= 3
    assert not {one for one in found if not one.isprintable()} - {"\n"}
