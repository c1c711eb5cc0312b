"""Made answers of the shapes that sites have, in ``pages``: a definition, a page, and the records, all written by hand.

The definitions are what docs/sources.md says, no more: each page is of a kind that some site has, with what it has around.
"""

import json

import msgspec
import pytest

from jobs.definition.read import read
from jobs.parse.source import Source
from tests.unit.describing import PAGES, page

FOLDERS = sorted(path.parent for path in PAGES.glob("*/source.toml"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_made_answer_gives_its_records(folder):
    """Exactly, including the types of values, and null."""
    source = Source(read(folder / "source.toml"))
    (body,) = folder.glob("page.*")
    found = msgspec.json.encode(source.parse(page(source, body.read_bytes())).rows)
    records = (folder / "records.json").read_text(encoding="utf-8")
    assert json.dumps(json.loads(found), indent=1) == json.dumps(json.loads(records), indent=1)
