"""Guesses the format, rows and some fields of a page that nobody has described yet, as a proposal for the author."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jobs.errors import TaskError
from jobs.page import Page

FIELDS_MAX: Final = 12
ROWS_MIN: Final = 3
FEEDS: Final = ("rss", "feed", "RDF")
_IS_HTML: Final = re.compile(rb"(?:<\?xml[^>]*>|<!--.*?-->|\s)*<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Guess:
    """Parts of a definition, as TOML. ``first`` is a field that each row has; ``what`` describes the page in words."""

    format: str = ""
    rows: str = ""
    fields: str = ""
    first: str = ""
    what: str = "HTML"


def guess(page: Page) -> Guess:
    """Judges by the content first, since servers call everything text/html or text/plain."""
    kind, start = page.header("content-type").lower(), page.body[:1000].lstrip(b"\xef\xbb\xbf \r\n\t")
    try:
        if start[:1] in (b"{", b"["):
            return _json(page.json)
        if start.startswith(b"<") and not _IS_HTML.match(start):
            return _xml(page.xml)
        if "csv" in kind or page.url.partition("?")[0].endswith(".csv"):
            return _csv(page.text)
        return _html(page.html)
    except TaskError:
        return _html(page.html)


def _json(value: Any) -> Guess:
    path, rows = max(_lists(value, ""), key=lambda found: len(found[1]), default=("", []))
    row = rows[0] if rows else value if isinstance(value, dict) else {}
    found = dict(list(_members(row))[:FIELDS_MAX])
    lines = [
        f"{_key(name)} = {{}}" if path_ == name else f"{_key(name)} = {{jmes = {json.dumps(path_)}}}"
        for name, path_ in found.items()
    ]
    where = json.dumps(path or "@")
    what = f"JSON: {len(rows)} rows at {where}" if rows else "JSON"
    table = f"[rows]                        # a JMESPath; each item is a record\njmes = {where}" if rows else ""
    first = next((name for name in found if all(one.get(name) is not None for one in rows or [row])), "")
    return Guess("json", table, "\n".join(lines) or '_ = {jmes = "@"}', first, what)


def _members(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The members of a row that are no objects or lists, by name, with their JMESPath; also those of objects in the row."""
    for name, one in row.items():
        if not isinstance(one, dict | list) and _PLAIN.fullmatch(name):
            yield name, name
    for name, one in row.items():
        if isinstance(one, dict) and _PLAIN.fullmatch(name):
            yield from (
                (inner, f"{name}.{inner}")
                for inner, value in one.items()
                if inner not in row and not isinstance(value, dict | list) and _PLAIN.fullmatch(inner)
            )


def _lists(value: Any, path: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """All lists of objects with their JMESPath, except lists inside lists."""
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        yield path, value
    elif isinstance(value, dict):
        for name, one in value.items():
            part = name if _PLAIN.fullmatch(name) else json.dumps(name)
            yield from _lists(one, f"{path}.{part}" if path else part)


def _xml(root: Any) -> Guess:
    if _local(root.tag) in FEEDS:
        return Guess("feed", "# [rows]                      # a row of a feed is an entry", "", "", "a feed")
    elements = [one for one in root.iter() if isinstance(one.tag, str) and (len(one) or one.attrib) and one is not root]
    kinds = Counter((one.tag, *one.attrib.keys()) for one in elements)
    kind, count = max(
        ((kind, n) for kind, n in kinds.items() if n >= ROWS_MIN), key=lambda one: one[1], default=((), 0)
    )
    row = next((one for one in elements if (one.tag, *one.attrib.keys()) == kind), root)
    tag = _local(row.tag) + "".join(f"[{name}]" for name in map(str, kind[1:2]) if _NAME.fullmatch(name))
    names = [_local(one.tag) for one in row if isinstance(one.tag, str) and not len(one)]
    lines = {name: f"{_key(name)} = {json.dumps(name)}" for name in names if _NAME.fullmatch(name)}
    lines |= {name: f'{_key(name)} = "::attr({name})"' for name in map(_local, row.attrib) if _NAME.fullmatch(name)}
    table = f"[rows]                        # each match is a record\ncss = {json.dumps(tag)}" if kind else ""
    what = f"XML: {count} elements {tag}" if kind else "XML"
    return Guess(
        "xml", table, "\n".join(list(lines.values())[:FIELDS_MAX]) or 'text = "*"', next(iter(lines), ""), what
    )


def _csv(text: str) -> Guess:
    head = text.partition("\n")[0]
    delimiter = max(",;\t|", key=head.count)
    rows = "# [rows]                      # a row of CSV is a line"
    if delimiter != ",":
        rows = f"[csv]\ndelimiter = {json.dumps(delimiter)}\n\n{rows}"
    return Guess("csv", rows, "", "", f"CSV: {head.strip()[:80]}")


def _html(root: Any) -> Guess:
    """Takes as rows the elements of one class that are siblings and together hold the most text."""
    texts: Counter[tuple[str, str]] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for one in root.iter():
        classes = str(one.get("class") or "").split() if isinstance(one.tag, str) else []
        beside = one.getparent() is not None and sum(other.tag == one.tag for other in one.getparent()) >= ROWS_MIN
        if classes and beside and re.fullmatch(r"[A-Za-z][\w-]*", classes[0]):
            counts[one.tag, classes[0]] += 1
            texts[one.tag, classes[0]] += len("".join(one.itertext()))
    found = [key for key, _ in texts.most_common(1) if counts[key] >= ROWS_MIN]
    if not found:
        return Guess(
            "",
            "",
            'title = "h1"',
            "title",
            "HTML: one record for each page, since no three elements of one class stand beside each other",
        )
    (tag, name), count = found[0], counts[found[0]]
    row = root.xpath(f"//{tag}[contains(concat(' ', normalize-space(@class), ' '), ' {name} ')]")[0]
    lines = _inside(row)
    rows = f"[rows]                        # each match is a record\ncss = {json.dumps(f'{tag}.{name}')}"
    return Guess(
        "",
        rows,
        "\n".join(f"{_key(key)} = {text}" for key, text in lines.items()),
        next(iter(lines)),
        f"HTML: {count} rows {tag}.{name}",
    )


def _inside(row: Any) -> dict[str, str]:
    """Fields of an HTML row: a heading, a link, and elements with a class and a text of their own."""
    fields: dict[str, str] = {}
    for one in row.iterdescendants():
        if not isinstance(one.tag, str) or len(fields) >= FIELDS_MAX:
            continue
        if re.fullmatch("h[1-6]", one.tag) and "title" not in fields:
            fields["title"] = json.dumps(one.tag)
        elif one.tag == "a" and one.get("href") and "link" not in fields:
            fields["link"] = '{css = "a::attr(href)", type = "url"}'
        classes = str(one.get("class") or "").split()
        has_text = bool((one.text or "").strip())
        if classes and has_text and re.fullmatch(r"[A-Za-z][\w-]*", classes[0]) and classes[0] not in fields:
            fields[classes[0]] = json.dumps(f".{classes[0]}")
    return fields or {"text": '{xpath = "."}'}


def _local(name: Any) -> str:
    return str(name).rpartition("}")[2]


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
