"""Samples: what ``nearfetch source sample`` keeps is what ``nearfetch source test`` compares, without a network."""

import json

import pytest

from jobs.definition.read import read
from scripts.authoring import samples
from scripts.site.behave import Rule
from scripts.site.pages import books
from tests.unit.scripts.authoring.test_try import BOOKS

BIG = next(number for number in range(2, 52) if books.size(number) == 85)
CATEGORY = f"{books.CATEGORIES[BIG - 2].lower()}_{BIG}"
GUARDED = """
title = "A page behind another"
url = 'https://books.toscrape.com/catalogue/category/books/{category}/index.html'
[params]
category = {default = "poetry_23"}
[before]
url = 'https://books.toscrape.com/catalogue/category/books/travel_2/index.html'
[before.fields]
token = "h1"
[request]
headers = {X-Token = "{before.token}"}
auth = {bearer = "{secret.SHOP}"}
[rows]
css = "article.product_pod"
[fields]
title = "h3 a::attr(title)"
"""
SECRET = "s3cr3t/with+signs"


@pytest.fixture(autouse=True)
def definition(folder):
    path = folder / "books.toml"
    path.write_text(BOOKS)
    return path


@pytest.fixture
def offline(monkeypatch):
    """From here on nothing may be fetched: no address is allowed, and every name leads to a closed port."""

    def close() -> None:
        monkeypatch.delenv("NEARFETCH__FETCH__ALLOW")
        monkeypatch.delenv("NEARFETCH__FETCH__ORIGINS")
        monkeypatch.setattr("socket.getaddrinfo", None)
        monkeypatch.setattr("socket.socket", None)

    return close


def test_all_pages_are_kept_and_tested_without_a_network(site, source, folder, offline):
    """Files that a person can read: the pages as they came, and one record a line."""
    done = source("sample", "books", f"category={CATEGORY}")
    assert done.exit_code == 0, done.output
    kept = folder / "samples" / "books" / CATEGORY
    assert sorted(file.name for file in kept.iterdir()) == [
        "1.html", "2.html", "3.html", "4.html", "5.html", "records.json", "sample.json",
    ]  # fmt: skip
    assert b"<html" in (kept / "1.html").read_bytes()
    lines = (kept / "records.json").read_text().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("[", "]", 87)
    about = json.loads((kept / "sample.json").read_text())
    assert about["params"] == {"category": CATEGORY}
    assert "content-encoding" not in {name.lower() for name in about["answers"][0]["headers"]}
    offline()
    done = source("test", "books")
    assert done.exit_code == 0, done.output
    assert f"  ok       books/{CATEGORY}   85 records of 5 pages" in done.stdout
    assert "1 of 1 sample as expected" in done.stderr


def test_what_changed_is_told_by_record_and_field(site, source, definition):
    source("sample", "books")
    definition.write_text(BOOKS.replace('title = "h3 a::attr(title)"', 'title = "h3 a::attr(href)"'))
    done = source("test", "books")
    assert done.exit_code == 1
    assert "  differs  books/poetry_23   20 records of 1 page" in done.stdout
    assert "record 1: title: expected " in done.stdout
    assert "and 17 more of title" in done.stdout
    assert "record 20: title: expected " in source("test", "books", "--all").stdout
    document = json.loads(source("test", "books", "--json").stdout)
    assert document["faults"] == []
    assert document["samples"][0]["sample"] == "books/poetry_23"
    assert not document["samples"][0]["ok"]
    assert document["samples"][0]["differences"][0]["field"] == "title"


def test_an_update_takes_what_comes_out_as_expected(site, source, definition, folder):
    source("sample", "books")
    definition.write_text(BOOKS.replace('title = "h3 a::attr(title)"', 'title = "h3"'))
    done = source("test", "books", "--update")
    assert done.exit_code == 0
    assert "  updated  books/poetry_23" in done.stdout
    assert source("test", "books").exit_code == 0


def test_pages_that_are_asked_for_no_more_are_a_difference(site, source, definition):
    """As are pages that the sample does not have, which no update can mend."""
    source("sample", "books", f"category={CATEGORY}")
    definition.write_text(BOOKS.replace("li.next a::attr(href)", ".nosuch::attr(href)"))
    done = source("test", "books")
    assert done.exit_code == 1
    assert "/page-2.html, found no such fetch" in done.stdout
    assert "record 21: expected, but missing: " in done.stdout
    definition.write_text(BOOKS.replace("li.next a::attr(href)", "h3 a::attr(href)"))
    done = source("test", "books", "--update")
    assert done.exit_code == 1
    assert "found page 2 failed: connection: expected one of the sample's addresses (" in done.stdout


def test_what_comes_before_is_kept_and_no_secret_is(site, source, folder, monkeypatch, offline):
    """Not in an answer that says it again either; the test needs no secret."""
    (folder / "guarded.toml").write_text(GUARDED)
    site.behaviour.add(
        Rule(
            prefix="/books.toscrape.com/catalogue/category/books/poetry_23/",
            body=f'<article class="product_pod"><h3><a title="for {SECRET}">x</a></h3></article>',
            headers={"Set-Cookie": f"session={SECRET}", "X-Echo": SECRET, "Content-Type": "text/html"},
        )
    )
    monkeypatch.setenv("NEARFETCH__SECRET__SHOP", SECRET)
    refused = source("sample", "guarded", "--name", "one")
    assert '[secrets.SHOP] sources = ["guarded"] in its file' in refused.output, "the line that mends it"
    monkeypatch.setenv("NEARFETCH__REGION__FRA__SECRETS__SHOP__SOURCES", "guarded")
    assert source("sample", "guarded", "--name", "one").exit_code == 0
    kept = folder / "samples" / "guarded" / "one"
    assert [file.name for file in kept.iterdir() if SECRET.encode() in file.read_bytes()] == []
    assert len(json.loads((kept / "sample.json").read_text())["answers"]) == 2
    monkeypatch.delenv("NEARFETCH__SECRET__SHOP")
    offline()
    done = source("test", "guarded")
    assert done.exit_code == 0, done.output
    assert "1 record of 2 pages" in done.stdout


def test_a_failure_is_kept_only_when_it_is_wanted(site, source, folder, definition):
    """Then it has to fail in the same way."""
    definition.write_text(BOOKS + 'blocked = "form#wall"\n')
    site.behaviour.add(Rule(prefix="/books.toscrape.com/", body="<form id=wall></form>"))
    done = source("sample", "books", "--name", "wall")
    assert done.exit_code == 1
    assert "failed: blocked (target" in done.stdout
    assert "Nothing is kept. With --failed it is kept" in done.stdout
    assert not (folder / "samples").exists()
    assert source("sample", "books", "--name", "wall", "--failed").exit_code == 0
    assert source("test", "books").exit_code == 0
    definition.write_text(BOOKS)
    done = source("test", "books")
    assert done.exit_code == 1
    assert "expected blocked, found contract: expected 1 row or more, found 0" in done.stdout


def test_a_page_that_did_not_come_is_not_kept(site, source, folder):
    site.behaviour.add(Rule(prefix="/books.toscrape.com/", cut=10))
    done = source("sample", "books", "--failed")
    assert done.exit_code == 1
    assert "Nothing is kept, since not every page arrived." in done.stdout
    assert not (folder / "samples").exists()


def test_a_sample_is_replaced_only_when_it_is_wanted(site, source, folder):
    assert source("sample", "books").exit_code == 0
    done = source("sample", "books")
    assert done.exit_code == 2
    assert "books has a sample poetry_23: replace it with --replace, or choose another name with --name" in done.stderr
    (folder / "samples" / "books" / "poetry_23" / "9.html").write_text("left over")
    assert source("sample", "books", "--replace").exit_code == 0
    assert [file.name for file in (folder / "samples" / "books").iterdir()] == ["poetry_23"]
    assert not (folder / "samples" / "books" / "poetry_23" / "9.html").exists()
    assert source("sample", "books", "--name", "../x").exit_code == 2


def test_files_make_a_sample_without_a_network(source, folder, tmp_path):
    page = tmp_path / "page.json"
    page.write_text('{"rows": [{"id": "1.50"}, {"id": "2"}]}')
    (folder / "tiny.toml").write_text(
        "title = 'Tiny'\nurl = 'https://tiny.example/'\n[rows]\njmes = 'rows'\n[fields]\nid = {type = 'decimal'}\n"
    )
    words = ["sample", "tiny", "--file", page, "--header", "Content-Type: application/json"]
    assert source(*words).exit_code == 0
    kept = folder / "samples" / "tiny" / "plain"
    assert (kept / "1.json").read_text() == page.read_text()
    assert (kept / "records.json").read_text() == '[\n{"id": "1.50"},\n{"id": "2"}\n]\n'
    assert source("test", "tiny").exit_code == 0


def test_samples_of_a_shipped_source_go_to_the_users_own_folder(folder, monkeypatch):
    """The checkout is not theirs; without a folder of their own there is nowhere else."""
    from regions import settings

    shipped = samples.SHIPPED / "books.list.toml"
    assert samples.home(settings.load(), shipped) == folder / "samples"
    monkeypatch.delenv("NEARFETCH__SOURCES__PATH")
    assert samples.home(settings.load(), shipped) == samples.SHIPPED / "samples"
    assert samples.home(settings.load(), folder / "mine.toml") == folder / "samples"


def test_a_test_that_tests_nothing_is_not_green(source, monkeypatch):
    monkeypatch.setattr(samples, "FOLDER", "of-nobody")  # the shipped sources have samples
    done = source("test")
    assert done.exit_code == 2
    assert "there are no samples yet" in done.stderr
    done = source("test", "books")
    assert done.exit_code == 2
    assert "books has no samples yet" in done.stderr


def test_a_broken_definition_fails_its_samples_only(site, source, folder, definition):
    source("sample", "books")
    (folder / "other.toml").write_text(BOOKS)
    source("sample", "other")
    definition.write_text(BOOKS.replace("css = ", "ccs = ", 1))
    done = source("test", "books", "other")
    assert done.exit_code == 2
    assert "  ok       other/poetry_23" in done.stdout
    assert 'books.toml:8: rows: unknown selector key "ccs"' in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda kept: (kept / "records.json").write_text("[1"), "books/poetry_23: expected a sample, found: "),
        (lambda kept: (kept / "1.html").unlink(), "expected a file beside it, found 1.html"),
        (
            lambda kept: (kept / "sample.json").write_text(
                '{"answers": [{"url": "x", "body": "../../../books.toml"}]}'
            ),
            "expected a file beside it, found ../../../books.toml",
        ),
        (lambda kept: (kept / "sample.json").write_text('{"answers": [], "parms": {}}'), "unknown field `parms`"),
    ],
)
def test_a_sample_that_is_none_is_told(site, source, folder, change, said):
    source("sample", "books")
    change(folder / "samples" / "books" / "poetry_23")
    done = source("test", "books")
    assert done.exit_code == 2
    assert said in done.stderr


def test_params_that_fit_no_longer_are_told(site, source, definition):
    source("sample", "books")
    definition.write_text(BOOKS.replace("category", "kind"))
    done = source("test", "books")
    assert done.exit_code == 1
    assert "its params are no longer valid: category: unknown param" in done.stdout


def test_every_secret_of_a_definition_has_a_stand_in(folder):
    (folder / "guarded.toml").write_text(GUARDED)
    assert samples.stand_ins(read(folder / "guarded.toml")) == {"SHOP": "removed"}


def test_every_shipped_source_can_be_sampled_and_tested_without_a_network(site, source, folder, offline):
    """Logins, cursors, feeds, archives, wrong charsets: what the sample site answers is read from the disk all the same."""
    ids = [path.stem for path in sorted(samples.SHIPPED.glob("*.toml"))]
    for one in ids:
        done = source("sample", one, "--name", "made")
        assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (folder / "samples").iterdir()) == ids
    shipped = sorted(path.parent.parent.name for path in (samples.SHIPPED / "samples").glob("*/*/sample.json"))
    assert sorted(set(shipped)) == ids, "each shipped source comes with a sample"
    offline()
    done = source("test")
    assert done.exit_code == 0, done.output
    count = len(ids) + len(shipped)
    assert f"{count} of {count} samples as expected" in done.stderr
