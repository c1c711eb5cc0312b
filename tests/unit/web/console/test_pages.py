"""The console's pages, as a document lists them."""

from tests.unit.test_docs import table
from web.console.pages import PAGES


def test_every_page_stands_in_the_document():
    pages = {path.replace("<", "{").replace(">", "}") for path, _ in PAGES}
    assert set(table("operations.md", "page")) == pages
