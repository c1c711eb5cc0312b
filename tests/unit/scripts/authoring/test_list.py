"""``nearfetch source list`` without a gateway: the definitions of this machine."""

import json

import pytest

MINE = """
title = "Lamps of a shop"
url = 'https://shop.example/{kind}{?page}'
region = "nyc"
[params]
kind = {required = true, example = "desk"}
page = {type = "int"}
[fields]
name = "b"
"""


@pytest.fixture(autouse=True)
def mine(folder):
    (folder / "mine.lamps.toml").write_text(MINE)
    (folder / "mine.broken.toml").write_text("title = 'Broken'")


def test_a_source_is_found_by_any_of_its_words(source):
    done = source("list", "SHOP", "kind")
    assert done.exit_code == 0
    assert done.stdout.split() == ["mine.lamps", "nyc", "kind", "[page]", "Lamps", "of", "a", "shop"]
    assert "1 source defined here; no gateway says their health" in done.stderr
    assert source("list", "mine.").stdout.split()[0] == "mine.broken", "by id"


def test_shipped_sources_and_broken_ones_are_listed_with_what_is_wrong(source):
    document = json.loads(source("list", "--json").stdout)
    listed = {one["id"]: one for one in document["sources"]}
    assert document["gateway"] is None
    assert {"ecb.rates", "unlocode.subdivisions", "mine.lamps"} < set(listed)
    assert listed["ecb.rates"]["health"] is None, "nobody has said how it is"
    assert listed["mine.broken"]["health"] == "broken"
    assert listed["mine.broken"]["reasons"]
    assert listed["mine.lamps"]["params"]["kind"] == {
        "type": "str",
        "required": True,
        "default": None,
        "example": "desk",
    }


def test_a_search_that_finds_nothing_says_so(source):
    done = source("list", "no", "such", "source")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "0 sources" in done.stderr
