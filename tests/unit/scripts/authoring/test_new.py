"""``nearfetch source new``: what it writes is valid at once, and what it proposes of a page gives its rows."""

import json

import pytest

from jobs.definition.read import read
from scripts.site.pages import ecb, quakes
from tests.unit.describing import PAGES

FEED = '<?xml version="1.0"?><rss version="2.0"><channel><title>T</title><item><title>A</title></item></channel></rss>'


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example/",
        "https://a.example/{kind}/list{?page,per_page}",
        "https://a.example/it's?x=%20",
        "http://a.example/{+path}",
        "{+page}",
        "https://{shop}/lamps{?q}",
    ],
)
def test_a_new_definition_is_valid_at_once(source, folder, url):
    """Its params are those of the address: what stands in the path is required, a query's is not."""
    done = source("new", "shop.list", url)
    assert done.exit_code == 0, done.output
    assert f"Written: {folder / 'shop.list.toml'}" in done.stdout
    assert source("check", "shop.list").exit_code == 0
    definition = read(folder / "shop.list.toml")
    assert definition.url == url
    required = {name: param.required for name, param in definition.params.items()}
    assert required == {
        "https://a.example/{kind}/list{?page,per_page}": {"kind": True, "page": False, "per_page": False},
        "http://a.example/{+path}": {"path": True},
        "{+page}": {"page": True},
        "https://{shop}/lamps{?q}": {"shop": True, "q": False},
    }.get(url, {})
    assert "docs/sources.md" in (folder / "shop.list.toml").read_text()


def test_every_comment_of_it_can_be_taken_out(source, folder, monkeypatch):
    """The lines in comments are valid too, in their places; a secret is one that the region binds."""
    monkeypatch.setenv("NEARFETCH__REGION__FRA__SECRETS__NAME__SOURCES", "shop.list")
    source("new", "shop.list", "https://a.example/{page}")
    path = folder / "shop.list.toml"
    lines = [
        line.removeprefix("# ") if " = " in line or line.startswith("# [") else line for line in path.read_text().splitlines()
    ]  # fmt: skip
    path.write_text("\n".join(lines).replace('format = "json"', 'format = "html"'))
    done = source("check", "shop.list")
    assert done.exit_code == 0, done.stdout
    assert read(path).next is not None


def test_an_id_that_is_taken_is_refused(source, folder):
    """Also that of a shipped source, and nothing is written."""
    done = source("new", "books.list", "https://a.example/")
    assert done.exit_code == 2
    assert "books.list exists already: " in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["A b", "https://a.example/"], 'found "A b"'),
        (["../a", "https://a.example/"], 'found "../a"'),
        (["a", "ftp://a.example/"], "a.toml:5: url: "),
        (["a", "https://a.example/{wait}"], "the HTTP interface has a parameter of that name"),
        (
            ["a", "https://a.example/{x}", "--fetch"],
            "expected a URL that can be fetched, found one without values for x",
        ),
    ],
)
def test_what_makes_no_definition_is_refused(source, folder, words, said):
    done = source("new", *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("page", "kind", "first", "rows"),
    [
        ((PAGES / "shop.html").read_text(), "text/html", None, None),
        (json.dumps({"meta": {"n": 2}, "data": {"items": [{"id": 1, "at": {"x": 5}}, {"id": 2, "at": {"x": 6}}]}}),
         "application/json", {"id": 1, "x": 5}, 2),
        (json.dumps([{"a b": 1, "c": "x"}, {"a b": 2, "c": "y"}]), "text/html", {"c": "x"}, 2),
        ("a;b\n1;2\n3;4\n", "text/csv", {"a": "1", "b": "2"}, 2),
        (FEED, "text/html", None, 1),
        ("<r><h/>" + "".join(f'<row id="{n}"><name>N{n}</name></row>' for n in range(4)) + "</r>", "text/xml",
         {"id": "0", "name": "N0"}, 4),
    ],
)  # fmt: skip
def test_what_is_proposed_of_a_page_gives_its_rows(source, folder, tmp_path, page, kind, first, rows):
    """By what is in it: servers call everything text/html."""
    file = tmp_path / "page"
    file.write_text(page)
    address = "https://a.example/all.csv" if kind == "text/csv" else "https://a.example/all"
    assert source("new", "a", address, "--file", file).exit_code == 0
    assert source("check", "a").exit_code == 0
    document = json.loads(source("try", "a", "--file", file, "--header", f"Content-Type: {kind}", "--json").stdout)
    assert document["status"] == "succeeded", document["error"]
    assert rows is None or document["count"] == rows
    assert first is None or document["records"][0] == first


@pytest.mark.parametrize(
    ("url", "what", "rows"),
    [
        (f"https://www.ecb.europa.eu{ecb.PATH}", "XML: 31 elements Cube[currency]", 31),
        (f"https://earthquake.usgs.gov{quakes.FEED}", 'JSON: 146 rows at "features"', 146),
        ("https://books.toscrape.com/catalogue/category/books/poetry_23/index.html", "HTML: 20 rows ", 20),
        ("https://news.ycombinator.com/", "HTML: 30 rows tr.athing", 30),
    ],
)
def test_a_page_is_fetched_and_looked_at(site, source, url, what, rows):
    done = source("new", "a", url, "--fetch")
    assert done.exit_code == 0
    assert f"The page looks like {what}" in done.stdout
    document = json.loads(source("try", "a", "--json").stdout)
    assert (document["status"], document["count"]) == ("succeeded", rows)


def test_a_page_that_does_not_come_is_said(source, folder):
    done = source("new", "a", "http://127.0.0.1:9/", "--fetch")
    assert done.exit_code == 1
    assert "failed: blocked_address (policy): " in done.stdout
    assert list(folder.iterdir()) == []
