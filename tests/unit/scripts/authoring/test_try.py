"""``nearfetch source try``: a source run here, by the worker's own steps, against the sample site really served."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess

import pytest
from click.testing import CliRunner

from regions.process import Process
from regions.settings import Fetch
from scripts.authoring.trial import Hits
from scripts.cli import main
from scripts.commands import options
from scripts.site.behave import Drip, Rule
from scripts.site.site import origins
from scripts.stack.data_folder import DataFolder
from tests.forked import AUTHORING, Forked
from tests.waiting import until

TRY = ["-m", "scripts.cli", "source", "try"]
BOOKS = """
title = "Books"
url = 'https://books.toscrape.com/catalogue/category/books/{category}/index.html'
region = "nyc"
[params]
category = {required = true, example = "poetry_23", pattern = '[a-z0-9-]+_\\d+'}
[rows]
css = "article.product_pod"
[fields]
title = "h3 a::attr(title)"
link = {css = "h3 a::attr(href)", type = "url"}
_helper = "h3"
subtitle = {css = "h3 a::attr(title)", re = '\\((.+)\\)'}
[next]
css = "li.next a::attr(href)"
[contract]
required = ["title"]
"""
PAGE = """<html><head><base href="https://shop.example/deep/"></head>
<body><article class="product_pod"><h3><a title="Gr\xfcn" href="x.html">Gr\xfcn</a></h3></article></body></html>"""


@pytest.fixture(autouse=True)
def books(folder):
    path = folder / "books.toml"
    path.write_text(BOOKS)
    return path


def test_records_fields_and_fetches_are_shown(site, source):
    """The example stands in for a required param that was not given, and that is said."""
    done = source("try", "books", "--rows", 2)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "books  nyc   category=poetry_23 (the definition's example)"
    url = "https://books.toscrape.com/catalogue/category/books/poetry_23/index.html"
    assert lines[1].startswith(f"  GET {url}   200   ")
    head = next(line for line in lines if "subtitle" in line)
    assert head.split() == ["title", "link", "subtitle"]
    assert "  2 of 20 records; --rows N shows more, --json all" in lines
    assert next(line for line in lines if line.startswith("  link ")).split() == ["link", "20", "of", "20"]
    assert "_helper" not in done.stdout
    assert lines[-1].startswith("20 records of 1 page, ")
    assert "\x1b" not in done.stdout


def test_the_first_misses_of_a_field_are_named(site, source):
    document = json.loads(source("try", "books", "--json").stdout)
    (subtitle,) = [one for one in document["fields"] if one["name"] == "subtitle"]
    empty = [number for number, record in enumerate(document["records"], 1) if record["subtitle"] is None]
    assert subtitle == {"name": "subtitle", "found": 20 - len(empty), "misses": empty}
    assert 3 < len(empty) < 20
    shown = next(line for line in source("try", "books").stdout.splitlines() if line.startswith("  subtitle"))
    assert shown.endswith(f"{20 - len(empty)} of 20   none in records {empty[0]}, {empty[1]}, {empty[2]}, …")


def test_nothing_is_what_the_contract_takes_for_nothing():
    """Zero and false are values."""
    rows = [{"a": 0}, {"a": False}, {"a": None}, {"a": ""}, {"a": []}, {}]
    assert Hits.of("a", rows) == Hits("a", 2, [3, 4, 5, 6])


def test_programs_get_the_result_as_clients_would_with_every_fetch(site, source):
    done = source("try", "books", "category=poetry_23", "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == 0
    assert (document["status"], document["count"], document["error"]) == ("succeeded", 20, None)
    assert document["params"] == {"category": "poetry_23"}
    assert len(document["records"]) == 20
    (fetch,) = document["fetches"]
    assert (fetch["method"], fetch["status"], fetch["error"]) == ("GET", 200, None)
    assert fetch["bytes"] == document["bytes"]["raw"]
    assert "rows" not in document


def test_a_failed_contract_shows_the_rows_that_broke_it(site, source, books):
    """Type, origin and message are said, and the exit code says it too."""
    books.write_text(BOOKS.replace('["title"]', '["title", "subtitle"]'))
    done = source("try", "books")
    assert done.exit_code == 1
    assert "failed: contract (parser): expected subtitle in every row, found none in " in done.stdout
    assert "  title     20 of 20" in done.stdout
    document = json.loads(source("try", "books", "--json").stdout)
    assert (document["error"]["type"], document["records"], len(document["rows"])) == ("contract", [], 20)


def test_a_status_of_the_target_is_said(site, source):
    site.behaviour.add(Rule(prefix="/books.toscrape.com/", status=503))
    done = source("try", "books")
    assert done.exit_code == 1
    assert "failed: http_status (target, status 503): expected a page, found status 503" in done.stdout


def test_the_guard_refuses_what_a_worker_would_be_refused(source, folder):
    """Nothing is allowed beside public addresses, whoever asks."""
    (folder / "inside.toml").write_text(BOOKS.replace("https://books.toscrape.com", "http://127.0.0.1:9"))
    done = source("try", "inside")
    assert done.exit_code == 1
    assert "failed: blocked_address (policy): " in done.stdout


def test_a_deadline_ends_it(site, source):
    site.behaviour.add(Rule(prefix="/books.toscrape.com/", drip=Drip(bytes=1, seconds=5)))
    done = source("try", "books", "--deadline", 1.5)
    assert done.exit_code == 1
    assert "failed: timeout (network, status 200): expected the whole answer within " in done.stdout


def test_a_broken_definition_is_told_whole_and_not_run(source, folder):
    (folder / "books.toml").write_text(BOOKS.replace("css = ", "ccs = "))
    done = source("try", "books")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert 'books.toml:8: rows: unknown selector key "ccs"; did you mean "css"?' in done.stderr
    assert 'books.toml:11: fields.link: unknown selector key "ccs"; did you mean "css"?' in done.stderr
    assert len(done.stderr.splitlines()) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["category=Poetry", "page=2"], ['unknown param "page"', "category: expected a text like"]),
        (
            ["category=poetry_23", "category=x_1"],
            ["expected each param of books once, as KEY=VALUE, found category=x_1"],
        ),
        (["poetry_23"], ["expected each param of books once, as KEY=VALUE, found poetry_23"]),
        (["--url", "https://x.example/"], ["--url, --header and --status describe a --file"]),
    ],
)
def test_words_that_fit_nowhere_are_refused(source, words, said):
    done = source("try", "books", *words)
    assert done.exit_code == 2
    assert all(text in done.stderr for text in said), done.stderr


def test_a_definition_outside_of_the_folders_can_be_tried(site, source, tmp_path, books):
    """Its file counts, also where a source of the folders has its id."""
    path = tmp_path / "elsewhere" / "books.toml"
    path.parent.mkdir()
    path.write_text(BOOKS.replace('title = "h3', 'heading = "h3').replace('["title"]', '["heading"]'))
    done = source("try", path, "--json")
    assert done.exit_code == 0
    assert "heading" in json.loads(done.stdout)["records"][0]


def test_a_file_answers_without_a_network(source, tmp_path):
    """With the headers and the address that are given; addresses are made absolute as on the page."""
    page = tmp_path / "page.html"
    page.write_bytes(PAGE.encode("latin-1"))
    done = source("try", "books", "--file", page, "--header", "Content-Type: text/html; charset=iso-8859-1", "--json")
    assert done.exit_code == 0
    (record,) = json.loads(done.stdout)["records"]
    assert record == {"title": "Gr\xfcn", "link": "https://shop.example/deep/x.html", "subtitle": None}
    page.write_text(PAGE.replace("<base", "<bose"))
    done = source("try", "books", "--file", page, "--url", "https://other.example/a/b", "--status", 200, "--json")
    assert json.loads(done.stdout)["records"][0]["link"] == "https://other.example/a/x.html"
    done = source("try", "books", "--file", page, "--status", 404)
    assert "failed: http_status (target, status 404)" in done.stdout


def test_files_answer_page_after_page(source, tmp_path):
    """A page for which there is no file is a later page that fails: what came before stays."""
    page = tmp_path / "page.html"
    page.write_text(PAGE.replace("</body>", '<li class="next"><a href="next.html">next</a></li></body>'))
    done = source("try", "books", "--file", page, "--file", page, "--json")
    document = json.loads(done.stdout)
    assert [fetch["url"] for fetch in document["fetches"]][1:] == ["https://shop.example/deep/next.html"]
    assert not document["partial"]
    document = json.loads(source("try", "books", "--file", page, "--json").stdout)
    assert document["partial"]
    assert document["warnings"] == [
        "page 2 failed: connection: expected a --file for GET https://shop.example/deep/next.html too, found 1"
    ]


def test_what_an_id_py_does_is_done_here_too(site, source, folder):
    (folder / "books.py").write_text(
        "def parse(page):\n    yield {'title': page.params['category'], 'link': 'x'}\n    raise KeyError('no more')\n"
    )
    (folder / "books.toml").write_text(BOOKS.replace('[rows]\ncss = "article.product_pod"\n', "").replace(
        '"h3 a::attr(title)"', "{}", 1
    ))  # fmt: skip
    done = source("try", "books")
    assert done.exit_code == 1
    assert "failed: parse (parser): books.py:3: parse failed: KeyError: 'no more'" in done.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("source try book", ["books", "books.list"]),
        ("source try books ca", ["category="]),
        ("source test books.l", ["books.list"]),
        ("source check quakes.d", ["quakes.day"]),
    ],
)
def test_a_shell_can_complete_sources_and_params(monkeypatch, line, offered):
    monkeypatch.setenv("_NEARFETCH_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_LINE", f"nearfetch {line}")
    done = CliRunner().invoke(main, [], prog_name="nearfetch")
    assert done.output.splitlines() == [f"plain,{word}" for word in offered]


def test_a_shell_can_complete_a_path(monkeypatch):
    monkeypatch.setenv("_NEARFETCH_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_LINE", "nearfetch source try ./quo")
    assert CliRunner().invoke(main, [], prog_name="nearfetch").output == "file,./quo\n"


@pytest.fixture
def data(served, tmp_path):
    """The data folder of an up whose sample site answers, on the default place."""
    found = DataFolder(tmp_path / "data")
    found.open()
    text = f'[fetch]\nallow = "127.0.0.1:{served.port}"\norigins = "{origins(served.port)}"\n'
    found.write("nearfetch.toml", text)
    return found


def test_the_settings_of_a_data_folder_count(source, data, monkeypatch):
    """The environment counts before them."""
    done = source("try", "books", "--data", data.path)
    assert done.exit_code == 0, done.output
    assert "The sample site of scripts/up answers" in done.stderr
    monkeypatch.setenv("NEARFETCH__FETCH__ORIGINS", "https://books.toscrape.com=http://127.0.0.1:9")
    done = source("try", "books", "--data", data.path)
    assert "failed: blocked_address (policy)" in done.stdout
    assert "sample site" not in done.stderr


def test_a_running_up_is_found(source, data, monkeypatch):
    """By its supervisor, which is alive; what an up that died left does not count, nor does it beside NEARFETCH_CONFIG."""
    data.pid_file("supervisord").write_text(f"{Process.own()}\n")
    assert source("try", "books").exit_code == 0
    monkeypatch.setenv("NEARFETCH_CONFIG", os.devnull)
    assert options.load_near(None).fetch.origins == ""
    monkeypatch.delenv("NEARFETCH_CONFIG")
    assert options.load_near(None).fetch.origins != ""
    data.pid_file("supervisord").write_text("1 0\n")
    assert options.load_near(None).fetch.origins == ""


def test_live_leaves_the_sample_site_alone(data, monkeypatch):
    """Nothing is mapped or allowed then but what the environment says."""
    settings = options.load_near(data.path)
    assert settings.fetch.origins
    assert options.live(settings).fetch == Fetch()
    monkeypatch.setenv("NEARFETCH__FETCH__ALLOW", "10.0.0.0/8")
    assert options.live(settings).fetch == Fetch(allow="10.0.0.0/8")


def test_ctrl_c_ends_the_task_and_says_so(served, folder, tmp_path):
    """In a process of its own, while a page is fetched."""
    served.behaviour.add(Rule(prefix="/books.toscrape.com/", drip=Drip(bytes=1, seconds=60)))
    environ = {key: value for key, value in os.environ.items() if not key.startswith("NEARFETCH")} | {
        "NEARFETCH_DATA": str(tmp_path / "data"),
        "NEARFETCH__SOURCES__PATH": str(folder),
        "NEARFETCH__FETCH__ALLOW": f"127.0.0.1:{served.port}",
        "NEARFETCH__FETCH__ORIGINS": origins(served.port),
    }
    asked, _ = served.fetches.since(0)
    process = Forked([*TRY, "books"], imported=AUTHORING, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: served.fetches.since(asked)[1], "the fetch to begin")
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        served.behaviour.reset()
    assert process.returncode == 130
    assert "failed: cancelled (policy" in shown


@pytest.fixture
def on_a_terminal(served, folder, tmp_path):
    """What ``source try`` shows on a terminal of so many columns, line by line, without colours."""

    def shown(columns: int, *words: str) -> list[str]:
        master, slave = pty.openpty()
        environ = {key: value for key, value in os.environ.items() if not key.startswith("NEARFETCH")} | {
            "NEARFETCH_DATA": str(tmp_path / "data"),
            "NEARFETCH__SOURCES__PATH": str(folder),
            "NEARFETCH__FETCH__ALLOW": f"127.0.0.1:{served.port}",
            "NEARFETCH__FETCH__ORIGINS": origins(served.port),
            "COLUMNS": str(columns),
            "TERM": "xterm",
        }
        process = Forked([*TRY, "books", *words], imported=AUTHORING, env=environ, stdout=slave)
        os.close(slave)
        text = b""
        with contextlib.suppress(OSError):  # its other end is closed
            while piece := os.read(master, 65536):
                text += piece
        os.close(master)
        assert process.wait(60) == 0
        assert b"\x1b[" in text
        return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text.decode()).replace("\r\n", "\n").splitlines()

    return shown


def test_a_table_fits_a_terminal(on_a_terminal):
    """Cells are cut as far as the terminal asks for; where not even that is enough each record gets a line a field."""
    for columns in (200, 100, 60):
        lines = on_a_terminal(columns, "--rows", "3")
        head = next(line for line in lines if "subtitle" in line)
        assert head.split() == ["title", "link", "subtitle"]
        table = lines[lines.index(head) : lines.index(head) + 5]
        assert max(map(len, table)) <= columns
        assert table[2].split()[0] == "1"
    lines = on_a_terminal(40, "--rows", "2")
    assert lines[lines.index("  record 2") + 1].startswith("  title     ")
    assert len(lines[lines.index("  record 2") + 2]) <= 40
