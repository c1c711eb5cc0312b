"""The console's own files."""

import re
from types import SimpleNamespace

import pytest

from web.console.files import FOLDER, Files
from web.http.problems import Problem


def asked(etag: str = "") -> SimpleNamespace:
    return SimpleNamespace(header=lambda name: etag if name == "If-None-Match" else "")


def test_a_file_of_this_version_is_kept_for_good_and_another_is_asked_for_again():
    files = Files()
    answer = files.answer(asked(), files.version, "console.css")
    headers = dict(answer.headers)
    assert (answer.status, answer.body) == (200, (FOLDER / "console.css").read_bytes())
    assert headers["Content-Type"] == "text/css; charset=utf-8"
    assert "immutable" in headers["Cache-Control"]
    other = files.answer(asked(), "0" * 12, "console.css")
    assert (other.body, dict(other.headers)["Cache-Control"]) == (answer.body, "no-cache")
    again = files.answer(asked(f'W/"x", {headers["ETag"]}'), "0" * 12, "console.css")
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("name", ["none.css", "..", "__init__.py", "../frame.py"])
def test_there_are_no_other_files(name):
    with pytest.raises(Problem, match="there is no file"):
        Files().answer(asked(), "x", name)


def test_the_version_changes_with_any_file(tmp_path):
    (tmp_path / "a.js").write_text("1")
    first = Files(tmp_path).version
    (tmp_path / "a.js").write_text("2")
    assert Files(tmp_path).version != first
    assert Files(tmp_path).address("a.js") == f"/console/{Files(tmp_path).version}/a.js"


def test_no_file_names_another_host():
    """But for the namespace of SVG, which nobody fetches."""
    for path in FOLDER.iterdir():
        found = set(re.findall(r"\b[a-z]+://[^\s\"')]*", path.read_text(encoding="utf-8")))
        assert found <= {"http://www.w3.org/2000/svg"}, path.name
