"""``nearfetch source check``: everything that is wrong with definitions, all at once."""

import json
import textwrap

import pytest

from jobs.parse import examine

GOOD = """
title = "Fine"
url = 'https://demo.example/'
[fields]
name = "b"
"""
BAD = """
title = "Bad"
url = 'https://demo.example/'
region = "frb"
standby = ["nyc", "nyx"]
[rows]
css = "li"
[fields]
name = {xpath = "//["}
price = {ccs = "i"}
when = {xpath = "nosuch("}
[limits]
rat = "2/s"
"""


def test_the_shipped_sources_are_fine(monkeypatch, source):
    monkeypatch.delenv("NEARFETCH__SOURCES__PATH")
    done = source("check")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "sources, nothing wrong" in done.stderr


def test_all_faults_of_a_source_are_told_at_once(folder, source):
    """What is no key, XPaths, unknown regions, and what its ID.py raises when it is loaded, in the order of lines."""
    (folder / "demo.bad.py").write_text("import math\n\nfrom nowhere_at_all import x\n\n\ndef parse(page): ...\n")
    (folder / "demo.bad.toml").write_text(BAD.replace('[rows]\ncss = "li"\n', ""))
    (folder / "demo.good.toml").write_text(GOOD)
    done = source("check")
    assert done.exit_code == 2
    assert done.stdout.splitlines() == [
        'demo.bad.toml:4: region: expected a known region, found "frb"; did you mean "fra"?',
        'demo.bad.toml:5: standby: expected a known region, found "nyx"; did you mean "nyc"?',
        'demo.bad.toml:7: fields.name: expected XPath 1.0, found "//[": Invalid expression',
        'demo.bad.toml:8: fields.price: unknown selector key "ccs"; did you mean "css"?',
        'demo.bad.toml:9: fields.when: expected XPath 1.0, found "nosuch(": Unregistered function',
        'demo.bad.toml:11: limits: unknown key "rat"; did you mean "rate"?',
        "demo.bad.py:3: ModuleNotFoundError: No module named 'nowhere_at_all'",
    ]
    assert "7 faults" in done.stderr
    assert source("check", "demo.good").exit_code == 0


def test_faults_are_told_to_programs_too(folder, source):
    (folder / "demo.bad.toml").write_text(BAD)
    document = json.loads(source("check", "demo.bad", "--json").stdout)
    assert document["sources"] == 1
    assert document["faults"][0] == {
        "source": "demo.bad",
        "file": "demo.bad.toml",
        "line": 4,
        "key": "region",
        "message": 'expected a known region, found "frb"; did you mean "fra"?',
    }


def test_a_file_outside_of_the_folders_can_be_named(tmp_path, source):
    path = tmp_path / "elsewhere" / "mine.toml"
    path.parent.mkdir()
    path.write_text(GOOD)
    assert source("check", path).exit_code == 0
    path.write_text("title = ")
    done = source("check", path)
    assert done.exit_code == 2
    assert done.stdout.startswith("mine.toml:1: expected TOML, found: ")


def test_what_is_no_source_is_refused_with_the_nearest_one(source):
    done = source("check", "book.list")
    assert done.exit_code == 2
    assert 'expected a source, found "book.list"; did you mean "books.list"?' in done.stderr
    done = source("check", "./book.toml")
    assert done.exit_code == 2
    assert "expected a source's file, found none at ./book.toml" in done.stderr


@pytest.mark.parametrize("ends", ["raise SystemExit(0)", "import sys; sys.exit('done')", "1 / 0"])
def test_an_id_py_that_ends_where_it_should_load_is_a_fault(tmp_path, ends):
    """It neither ends the command nor the process that examines it."""
    path = tmp_path / "demo.toml"
    path.write_text(textwrap.dedent(GOOD))
    path.with_suffix(".py").write_text(f"def parse(page): ...\n{ends}\n")
    (fault,) = examine.faults(path)
    assert (fault.file, fault.line) == ("demo.py", 2)


def test_a_standby_must_have_what_the_source_needs(folder, source):
    text = 'region = "fra"\nstandby = ["nyc"]\n' + GOOD + '[request]\negress = "asia"\n'
    (folder / "demo.elsewhere.toml").write_text(text)
    done = source("check", "demo.elsewhere")
    assert done.exit_code == 2
    assert [line.partition("; ")[0] for line in done.stdout.splitlines()] == [
        f'demo.elsewhere.toml:9: request.egress: expected an egress of region {region}, found "asia"'
        for region in ("fra", "nyc")
    ]
