"""``nearfetch source new``: writes a definition to begin with. It is valid at once; everything optional is in comments."""

import json
import re
import tempfile
import time
from pathlib import Path
from string import Template
from typing import Final

import click
import uritemplate
from uritemplate.variable import Operator

from jobs.definition.hosts import leaders
from jobs.definition.limits import Limits
from jobs.errors import TaskError
from jobs.fetch.egress import fetchers_of
from jobs.fetch.fetcher import Terms
from jobs.page import Page, Request
from jobs.parse import examine
from regions import names
from regions.faults import Faults
from regions.settings import ROOT, Settings
from scripts.authoring.guess import Guess, guess
from scripts.authoring.trial import Files
from scripts.commands.source_check import known
from scripts.terminal import say

QUERY: Final = (Operator.form_style_query, Operator.form_style_query_continuation)
PLAIN: Final = Guess(
    rows='[rows]                        # one record for each match; without [rows] the page is one\ncss = "article"',
    fields='title = "h2"                  # all of the first h2\'s text\nlink  = {css = "a::attr(href)", type = "url"}',
    first="title",
)
SKELETON: Final = Template("""\
# $id: docs/sources.md describes the whole format.
# nearfetch source try $id        runs it here;  nearfetch source check $id  reports its faults

title  = $title
url    = $url
# region = "fra"              # the region where it runs; by default the first one
$format
$params
# [request]                   # what is sent besides the URL
# headers = {Accept-Language = "en"}
# auth    = {bearer = "{secret.NAME}"}   # with [secrets.NAME] sources = ["$id"] in the region's file

$rows

$fields
# price = {css = ".price", type = "decimal"}
# tags  = {css = ".tag", many = true}
# day   = {css = "time::attr(datetime)", type = "date"}

# [next]                      # more pages
# css = "a[rel=next]::attr(href)"
# max_pages = 20

[limits]
timeout_seconds = 10          # of one fetch
# rate = "2/s"                # of its host

[contract]                    # what every answer has to fulfil; else it fails as contract
$required
# unique = ["link"]
# absent = [404]              # these statuses mean: no rows
""")
PARAMS: Final = """
# [params]                    # what a client may choose: {name} in url, or in [request]
# page = {type = "int", default = 1, example = 2}
"""


def run(settings: Settings, source: str, url: str, *, files: Files | None, is_fetching: bool) -> int:
    """Writes the file, says where, and returns the exit code.

    Raises click's ``UsageError`` when the id is taken, and ``Faults`` when id and URL make no valid definition.
    """
    entry = known(settings).get(source)
    if entry is not None:
        raise click.UsageError(f"{source} exists already: {entry.path}")
    found = PLAIN
    if files is not None or is_fetching:
        if needed := [name for name, is_needed in _variables(url) if is_needed]:
            raise click.UsageError(
                f"expected a URL that can be fetched, found one without values for {', '.join(needed)}"
            )
        page = look(settings, uritemplate.expand(url, {}), files)
        if page is None:
            return 1
        found = guess(page)
        say(f"The page looks like {found.what}.")
    text = skeleton(source, url, found)
    check(source, text)
    folder = settings.sources.folders[0] if settings.sources.folders else ROOT / "jobs" / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{source}.toml"
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    say(f"Written: {path}\nNow: nearfetch source try {source}")
    return 0


def look(settings: Settings, url: str, files: Files | None) -> Page | None:
    """The page at a URL, fetched like a worker of the first region. None when the fetch failed, after saying why."""
    limits = Limits()
    answers = files or fetchers_of(settings, settings.one(settings.first_region), elsewhere=True)["default"]
    try:
        terms = Terms(
            deadline=time.monotonic() + limits.timeout_seconds,
            timeout_seconds=limits.timeout_seconds,
            max_bytes=limits.max_bytes,
            cancelled=lambda: False,
        )
        return answers.fetch(Request(url=url), terms)
    except TaskError as error:
        say(f"failed: {error.type} ({error.whose}): {error}")
        return None
    finally:
        answers.close()


def skeleton(source: str, url: str, found: Guess) -> str:
    """The text of the file."""
    leading = leaders(url)
    params = "".join(_param(name, is_required=needed, is_leading=name in leading) for name, needed in _variables(url))
    form = (
        f'format = "{found.format}"'
        if found.format
        else '# format = "json"             # html by default; or xml, json, feed, csv, text'
    )
    return SKELETON.substitute(
        id=source,
        title=json.dumps(source, ensure_ascii=False),
        url=json.dumps(url, ensure_ascii=False) if "'" in url else f"'{url}'",
        format=form,
        params=f"\n[params]                      # what a client may choose\n{params}" if params else PARAMS,
        rows=found.rows or "# [rows]",
        fields=f"[fields]                      # for each field a selector, or a table with one\n{found.fields}"
        if found.fields
        else "# [fields]                    # without it, every key becomes a field",
        required=f'required = ["{found.first}"]' if found.first else '# required = ["…"]',
    )


def _variables(url: str) -> list[tuple[str, bool]]:
    """The names in a URL template, and for each whether the URL needs a value; it does not in a query."""
    found: dict[str, bool] = {}
    for variable in uritemplate.URITemplate(url).variables:
        for name in variable.variable_names:
            found[name] = found.get(name, False) or variable.operator not in QUERY
    return list(found.items())


def _param(name: str, *, is_required: bool, is_leading: bool) -> str:
    key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
    keys = ["required = true"] * is_required + ['hosts = ["example.org", "*.example.org"]'] * is_leading
    return f'{key} = {{{", ".join(keys)}}}   # example = "…", type = "int", enum = ["…"]\n'


def check(source: str, text: str) -> None:
    """Raises ``Faults`` when the definition would be invalid."""
    if not re.fullmatch(names.SOURCE_PATTERN, source):
        raise click.UsageError(f'expected an id of {names.SOURCE_PATTERN}, found "{source}"')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{source}.toml"
        path.write_text(text, encoding="utf-8")
        if found := examine.faults(path):
            raise Faults(found)
