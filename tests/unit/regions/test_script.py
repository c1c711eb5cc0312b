"""How Lua scripts are read: the head names what a script takes, and every disagreement is found when it is read."""

import re

import pytest
from msgspec import Struct

from regions.lua_files import Folder
from regions.script import Script
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


def test_keys_and_arguments_are_named_and_parts_stand_once_before_what_uses_them(folder):
    text = (
        "-- What it does,\n-- in two lines.\n-- keys: queue, held\n-- args: name,\n--   ms\n"
        "-- uses: stamp, place\n-- constants: KEEP_MS\n-- flags: allow-oom\nreturn KEEP_MS -- KEEP_MS\n"
    )
    made = folder.compose(text)
    assert made.text == (
        "#!lua flags=allow-oom\n"
        "local queue, held = unpack(KEYS, 1, 2)\n"
        "local name, ms = unpack(ARGV, 1, 2)\n"
        'local stamp = "a \\"zone\\""\n'
        "local function place() end\n"
        "return 300000 -- KEEP_MS\n"
    )
    assert folder.compose(text) == made
    assert Script(made).command(held="h", queue="q", ms=5, name="n") == (
        "EVALSHA",
        Script(made).sha,
        2,
        "q",
        "h",
        "n",
        5,
    )


def test_the_fields_of_rows_are_places_and_python_gives_them_in_that_order(folder):
    text = (
        "-- Does.\n-- args: name, rows (row)\n-- rows: row (id, state)\n"
        "for _, row in ipairs(rows) do put(row.id, row.state, 'row.id', other.row.id, row_size()) end\n"
        "local id, state = 1, 2\nreturn row_row()\n"
    )
    made = folder.compose(text, row=Row)
    assert made.text == (
        "#!lua\n"
        "local name = ARGV[1]\n"
        "local rows = {}\n"
        "for at = 2, #ARGV, 2 do rows[#rows + 1] = {unpack(ARGV, at, at + 1)} end\n"
        "for _, row in ipairs(rows) do put(row[1], row[2], 'row.id', other.row.id, 2) end\n"
        "local id, state = 1, 2\nreturn {id, state}\n"
    )
    called = Script(made).command(name="n", rows=[Row("1", "a"), Row("2", "b")])
    assert called[2:] == (0, "n", "1", "a", "2", "b")


def test_a_row_may_begin_with_the_fields_of_another_one(folder, tmp_path):
    (tmp_path / "rows.lua").write_text(
        "-- Rows.\n-- rows: row (id, state)\nlocal function show(row) return row.state end\n"
    )

    class Longer(Row):
        more: str

    made = folder.compose(
        "-- Does.\n-- rows: longer (..row, more)\n-- uses: rows\nreturn longer.more, row.state\n", longer=Longer
    )
    assert made.text.splitlines()[1:] == ["local function show(row) return row[2] end", "return longer[3], row[2]"]


def test_a_list_takes_the_arguments_that_are_left_and_a_script_may_have_its_keys_for_good(folder):
    script = Script(folder.compose("-- Does.\n-- keys: queue\n-- args: name, ids...\nreturn #ids\n"))
    assert script.command(queue="q", name="n", ids=["1", "2"])[2:] == (1, "q", "n", "1", "2")
    assert script.on(queue="q").command(name="n", ids=iter("12")) == script.command(queue="q", name="n", ids=["1", "2"])
    assert Script(folder.compose("-- Does.\nreturn 1\n")).command()[2:] == (0,)


def test_what_stands_before_all_stands_before_keys_and_arguments(folder, tmp_path):
    made = Folder(tmp_path, first="first").compose("-- Does.\n-- keys: queue\n-- uses: first\nreturn queue\n")
    assert made.text == "#!lua\nlocal first = 1\nlocal queue = KEYS[1]\nreturn queue\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("return 1\n", "a comment that says what it does"),
        ("-- keys: queue\nreturn 1\n", "a comment that says what it does"),
        ("-- Does.\n-- keys: queue\n-- More of it.\nreturn 1\n", "before the other lines of its head"),
        ("-- Does.\n-- keys: queue held\nreturn 1\n", "expected names after keys"),
        ("-- Does.\n-- uses: place\nreturn 1\n", "place.lua needs them"),
        ("-- Does.\n-- args: rows (row)\n-- rows: row (id, state, more)\nreturn 1\n", "expected structs with"),
        ("-- Does.\n-- args: rows (row)\nreturn 1\n", "expected a row of its head"),
        ("-- Does.\n-- rows: row (id, state)\nreturn row.stat\n", "expected one of id, state, found row.stat"),
        ("-- Does.\nreturn KEEP_MS\n", "expected constants of Python"),
        ("-- Does.\n-- constants: UNHEARD\nreturn UNHEARD\n", "expected constants of Python"),
    ],
)
def test_a_script_that_does_not_agree_with_its_head_is_refused(folder, text, why):
    rows = {"row": Row} if "row (id" in text else {}
    with pytest.raises(ValueError, match=why):
        folder.compose(text, **rows)


@pytest.mark.parametrize(
    "given", [{}, {"queue": "q"}, {"queue": "q", "name": "n", "more": 1}, {"queue": "q", "nam": "n"}]
)
def test_a_call_with_other_names_is_refused(folder, given):
    script = Script(folder.compose("-- Does.\n-- keys: queue\n-- args: name\nreturn 1\n"))
    with pytest.raises(TypeError, match=r"expected queue, name for a script, found "):
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
