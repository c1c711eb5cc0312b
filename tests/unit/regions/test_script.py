"""How Lua scripts are read: the head names what a script takes, and every disagreement is found when it is read."""

import re

import pytest
from msgspec import Struct

from regions.script import Folder, Script
from tests import lua


class Row(Struct):
    id: str
    state: str


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "place.lua").write_text(
        "-- Puts a task into the queue.\n-- needs: queue\n-- uses: stamp\nlocal function place() end\n"
    )
    (tmp_path / "stamp.lua").write_text("-- The time.\n-- constants: ZONE\nlocal stamp = ZONE\n")
    (tmp_path / "first.lua").write_text("-- What all begin with.\nlocal first = 1\n")
    return Folder(tmp_path, {"KEEP_MS": 300_000, "ZONE": 'a "zone"'})


def test_keys_arguments_and_rows_are_named_and_parts_stand_once_before_what_uses_them(folder):
    text = (
        "-- What it does,\n-- in two lines.\n-- keys: queue, held\n-- args: name,\n--   rows (id, state)\n"
        "-- uses: stamp, place\n-- constants: KEEP_MS\n-- flags: allow-oom\nreturn KEEP_MS -- KEEP_MS\n"
    )
    made = folder.compose(text, rows=Row)
    assert made.text == (
        "#!lua flags=allow-oom\n"
        "local queue, held = unpack(KEYS, 1, 2)\n"
        "local name = ARGV[1]\n"
        "local ARGV, rows = ARGV, {}\n"
        "for at = 2, #ARGV, 2 do rows[#rows + 1] = {id = ARGV[at], state = ARGV[at + 1]} end\n"
        'local stamp = "a \\"zone\\""\n'
        "local function place() end\n"
        "return 300000 -- KEEP_MS\n"
    )
    assert folder.compose(text, rows=Row) == made
    called = Script(made).command(held="h", queue="q", name="n", rows=[Row("1", "a"), Row("2", "b")])
    assert called == ("EVALSHA", Script(made).sha, 2, "q", "h", "n", "1", "a", "2", "b")


def test_a_list_takes_the_arguments_that_are_left_and_a_script_may_have_its_keys_for_good(folder):
    script = Script(folder.compose("-- Does.\n-- keys: queue\n-- args: name, ids...\nreturn #ids\n"))
    assert script.command(queue="q", name="n", ids=["1", "2"])[2:] == (1, "q", "n", "1", "2")
    assert script.on(queue="q").command(name="n", ids=iter("12")) == script.command(queue="q", name="n", ids=["1", "2"])
    assert Script(folder.compose("-- Does.\nreturn 1\n")).command()[2:] == (0,)


def test_what_stands_before_all_stands_before_keys_and_arguments(folder, tmp_path):
    made = Folder(tmp_path, first="first").compose("-- Does.\n-- keys: queue\n-- uses: first\nreturn queue\n")
    assert made.text == "#!lua\nlocal first = 1\nlocal queue = KEYS[1]\nreturn queue\n"


def test_a_row_that_is_returned_is_made_in_the_order_of_its_head(folder):
    made = folder.compose("-- Does.\n-- rows: row (id, state)\nreturn row_row({state = 1, id = 2})\n", row=Row)
    assert made.text.splitlines()[1] == "local function row_row(row) return {row.id, row.state} end"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("return 1\n", "a comment that says what it does"),
        ("-- keys: queue\nreturn 1\n", "a comment that says what it does"),
        ("-- Does.\n-- keys: queue\n-- More of it.\nreturn 1\n", "before the other lines of its head"),
        ("-- Does.\n-- keys: queue held\nreturn 1\n", "expected names after keys"),
        ("-- Does.\n-- uses: place\nreturn 1\n", "place.lua needs them"),
        ("-- Does.\n-- args: rows (id, state, more)\nreturn 1\n", "expected rows of"),
        ("-- Does.\nreturn KEEP_MS\n", "expected constants of Python"),
        ("-- Does.\n-- constants: UNHEARD\nreturn UNHEARD\n", "expected constants of Python"),
    ],
)
def test_a_script_that_does_not_agree_with_its_head_is_refused(folder, text, why):
    rows = {"rows": Row} if "rows" in text else {}
    with pytest.raises(ValueError, match=why):
        folder.compose(text, **rows)


@pytest.mark.parametrize("given", [{"queue": "q"}, {"queue": "q", "name": "n", "more": 1}, {"queue": "q", "nam": "n"}])
def test_a_call_with_other_names_is_refused(folder, given):
    script = Script(folder.compose("-- Does.\n-- keys: queue\n-- args: name\nreturn 1\n"))
    with pytest.raises(TypeError, match=r"expected queue, name for a script, found queue"):
        script.command(**given)
    with pytest.raises(TypeError, match="expected queue for a script"):
        script.on(name="n")


def test_every_lua_file_is_part_of_a_script_and_names_no_constant_that_it_does_not_use():
    assert {file for script in lua.scripts().values() for file in script.lua.files} == set(lua.FILES)
    faults = []
    for file in lua.FILES:
        head, _, body = file.read_text().partition("\n\n")
        named = re.findall(r"\w+", "".join(re.findall(r"^-- constants: (.*(?:\n--   .*)*)", head, re.MULTILINE)))
        faults += [(file, name) for name in named if not re.search(rf"\b{name}\b", body)]
    assert faults == []


def test_no_script_counts_its_keys_and_arguments():
    """They have names. Only what reads the time of a call takes it from the end of ARGV."""
    found = {file.name for file in lua.FILES if re.search(r"\b(KEYS|ARGV)\b", file.read_text())}
    assert found <= {"clock.lua"}
