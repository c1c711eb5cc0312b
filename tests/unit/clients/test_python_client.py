"""What the Python client does without a gateway: how it reads answers and streams, its bar, its tables, what it imports."""

import ast
import json
import os
import pty
import shutil
import subprocess
import sys

import pytest
import requests
from nearfetch_client import Event, NearfetchError, Request, Result, _Bar, _split, read_events

from regions.settings import ROOT

CLIENT = ROOT / "clients" / "python" / "nearfetch_client.py"


def result(records: list[dict]) -> Result:
    return Result("t", "s", "fra", "succeeded", records, partial=False, warnings=[], error=None, raw={}, text="{}")


def test_it_imports_nothing_but_the_standard_library_and_requests():
    """So that it can be copied."""
    found = set()
    for node in ast.walk(ast.parse(CLIENT.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
    assert found - sys.stdlib_module_names == {"requests", "pandas", "polars"}  # the last two where a table is wanted


def test_events_are_read_as_the_standard_says():
    lines = [
        b": hello\n", b"\n", b"event: result\r\n", b"id: 7-0\r\n", b'data: {"a":\r\n', b"data:1}\r\n", b"\r\n", b"data: 2\n", b"\n",
        b"data: cut",
    ]  # fmt: skip
    first, second = read_events(lines)
    assert (first.name, first.id, first.data) == ("result", "7-0", {"a": 1})
    assert second == Event("message", "7-0", "2")


@pytest.mark.parametrize("space", ["", " ", "\r\n\t"])
def test_a_result_keeps_the_spelling_of_its_numbers(space):
    """Wherever it stands in the document, and whatever a client's own attrs look like."""
    one, two = '{"records":[{"rate":1.10,"n":1E3}],"task":"a"}', '{"records":[],"task":"b,]}"}'
    parts = [
        "{",
        '"attrs"',
        ":",
        '{"results":[1]}',
        ",",
        '"results"',
        ":",
        "[",
        one,
        ",",
        two,
        "]",
        ",",
        '"more"',
        ":",
        "true",
        "}",
    ]
    members, results = _split(space.join(["", *parts, ""]))
    assert members == {"attrs": {"results": [1]}, "more": True}
    assert [text for _, text in results] == [one, two]
    assert results[0][0]["records"] == [{"rate": 1.1, "n": 1000.0}]
    assert _split('{"results":[]}') == ({}, [])
    assert _split("{}") == ({}, [])


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "<html>", '{"results"', '{"results":[{}', '{"results":[{} {}]}', '{"id":"a" "b":1}', '{"id":"a"}']
)  # fmt: skip
def test_what_is_no_request_is_an_error_of_the_client_and_no_other(text):
    answer = requests.Response()
    answer.status_code, answer._content, answer.url = 200, text.encode(), "http://gateway/v1/requests"
    with pytest.raises(NearfetchError, match="expected a request from http://gateway/v1/requests, found"):
        Request(None, answer)


CODE = """
import sys; sys.path.insert(0, {folder!r})
from nearfetch_client import _Bar, Result
one = Result("t", "s", "fra", "succeeded", [], partial=False, warnings=[], error=None, raw={{}}, text="")
with _Bar({total}, None) as bar:
    for _ in range({total}):
        bar.count(one)
"""


def on_a_terminal(total: int) -> str:
    """What a program that counts so many results shows on a terminal."""
    ours, its = pty.openpty()
    code = CODE.format(folder=str(CLIENT.parent), total=total)
    subprocess.run([sys.executable, "-c", code], stderr=its, check=True)
    os.write(its, b"|")  # so that there is something to read in any case
    shown = b""
    while not shown.endswith(b"|"):
        shown += os.read(ours, 4096)
    os.close(its)
    os.close(ours)
    return shown.decode().removesuffix("|")


def test_a_bar_is_shown_on_a_terminal_for_several_results():
    shown = on_a_terminal(4)
    assert shown.count("\n") == 1
    first, *_, last = shown.strip().split("\r")
    assert first.startswith("[######..................] 1 of 4, ")
    assert last.startswith("[########################] 4 of 4, ")
    assert on_a_terminal(1) == ""


def test_a_bar_is_shown_in_a_notebook_and_nowhere_else(capsys, monkeypatch):
    """A notebook is where a kernel of Jupyter's runs; its cells show standard output in place."""
    with _Bar(2, None) as bar:
        bar.count(result([]))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    for wanted in (None, False):
        with _Bar(2, wanted) as bar:
            bar.count(result([]))
        out, err = capsys.readouterr()
        assert ("1 of 2" in out, err) == (wanted is None, "")


@pytest.mark.parametrize("table", ["pandas", "polars"])
def test_records_become_a_table_where_the_library_is_installed(table):
    pytest.importorskip(table)
    rows = [{"name": "a", "price": 1.5, "tags": ["x"]}, {"name": None, "price": 2.0, "tags": []}]
    frame = getattr(result(rows), f"to_{table}")()
    assert list(frame.columns) == ["name", "price", "tags"]
    assert list(frame["price"]) == [1.5, 2.0]
    assert len(getattr(result([]), f"to_{table}")()) == 0


INSTALLED = """
import importlib.metadata, json, sys
sys.path.insert(0, sys.argv[1])
import nearfetch_client
found = importlib.metadata.distribution("nearfetch-client")
print(json.dumps([nearfetch_client.__file__, nearfetch_client.__version__, found.version, found.requires]))
"""


def test_pip_installs_it(tmp_path):
    """As a package with py.typed (PEP 561), so that type checkers believe it. Its build needs hatchling, from the package index."""
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(CLIENT.parent, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-deps",
        "--target",
        str(site),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "Could not find a version that satisfies the requirement hatchling" in done.stderr:
        pytest.skip("the package index can't be reached")
    assert done.returncode == 0, done.stderr
    said = subprocess.run(
        [sys.executable, "-I", "-c", INSTALLED, str(site)], capture_output=True, text=True, check=True
    )
    file, version, distributed, requires = json.loads(said.stdout)
    assert (file, version) == (str(site / "nearfetch_client" / "__init__.py"), distributed)
    assert (site / "nearfetch_client" / "py.typed").is_file()
    assert requires == ["requests>=2.28"]
