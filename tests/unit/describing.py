"""Sources written in a test, and pages to try them on."""

import re
import textwrap
from pathlib import Path

from jobs.definition.model import Definition
from jobs.definition.read import read
from jobs.page import Page
from jobs.parse.source import Parsed, Source
from regions.faults import Faults

PAGES = Path(__file__).parent / "pages"
URL = "https://shop.example/list/index.html"


def define(folder: Path, text: str, *, url: str = URL, name: str = "demo.test", code: str = "") -> Definition:
    """A definition of a text; title and url are put before it where they are missing."""
    text = textwrap.dedent(text)
    head = "" if re.search(r"^url\s*=", text.split("[")[0], re.MULTILINE) else f"title = 'A demo'\nurl = '{url}'\n"
    path = folder / f"{name}.toml"
    path.write_text(head + text, encoding="utf-8")
    if code:
        path.with_suffix(".py").write_text(textwrap.dedent(code), encoding="utf-8")
    return read(path)


def faults(folder: Path, text: str, **options: str) -> list[str]:
    """What is wrong with a definition."""
    try:
        Source(define(folder, text, **options))
    except Faults as found:
        return [str(fault) for fault in found.faults]
    return []


def page(source: Source, body: bytes | str, **options) -> Page:
    """A page that answered the source's first request."""
    request = options.pop("request", None) or source.first(options.pop("params", {}), {})
    body = body.encode() if isinstance(body, str) else body
    headers = {"Content-Type": options.pop("content_type", "")}
    status = options.pop("status", 200)
    return Page(request, options.pop("url", request.url), status, {**headers, **options}, body, request.params)


def parse(folder: Path, text: str, body: bytes | str, **options) -> Parsed:
    """What a definition makes of a body."""
    source = Source(define(folder, text, code=options.pop("code", "")))
    return source.parse(page(source, body, **options))


def rows(folder: Path, text: str, body: bytes | str, **options) -> list[dict[str, object]]:
    """The records that a definition makes of a body, without warnings."""
    parsed = parse(folder, text, body, **options)
    assert parsed.warnings == []
    return parsed.rows


def shop() -> bytes:
    """The hand-written listing."""
    return (PAGES / "shop.html").read_bytes()
