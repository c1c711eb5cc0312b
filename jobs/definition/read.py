"""Reads a source's definition: one TOML file, with all its faults reported at once.

read(path) → Definition      raises Faults: "quotes.toml:9: fields.author: unknown selector key …"
"""

import ast
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from jobs.definition import ask
from jobs.definition.ask import DEFAULT_EGRESS, Ask, read_ask
from jobs.definition.delimited import read_csv
from jobs.definition.field import DEFAULT_LANGUAGE, ELEMENT, PAGE_KINDS, ROW, VALUE, Kinds, Selector
from jobs.definition.field_reader import FieldReader
from jobs.definition.hosts import ANY, hosts_of, leaders
from jobs.definition.limits import Contract, read_contract, read_limits
from jobs.definition.model import PAGES_MAX, Before, Definition, Next
from jobs.definition.params import Param, read_params
from jobs.definition.reader import Reader, Table, show
from jobs.text import pattern
from jobs.text.charset import is_known
from regions import names, toml
from regions.faults import Fault, Faults

FORMATS: Final = tuple(DEFAULT_LANGUAGE)
CODE_NAMES: Final = ("request", "parse", "next_page")  # functions that ID.py may define

_KEYS: Final = (
    "title", "url", "region", "standby", "pinned", "any_host", "format", "charset", "archive", "params", "request", "before", "rows",
    "fields", "next", "limits", "contract", "namespaces", "csv",
)  # fmt: skip


def read(path: Path) -> Definition:
    """Reads ``ID.toml``, and which functions ``ID.py`` beside it defines, without running it. Raises ``Faults``."""
    definition, faults = examine(path)
    if faults:
        raise Faults(sorted(faults, key=lambda fault: fault.line or 0))
    return definition


def examine(path: Path) -> tuple[Definition, list[Fault]]:
    """A definition and all its faults. Faulty parts are left out, or have their defaults.

    Raises ``Faults`` if the file is not TOML.
    """
    raw = toml.read(path)
    data = path.read_bytes()
    reader = Reader(path.name, data.decode("utf-8"))
    code_path = path.with_suffix(".py") if path.suffix == ".toml" else None
    code = b""
    if code_path is not None and code_path.is_file():
        code = code_path.read_bytes()
    digest = hashlib.sha256(data + code).hexdigest()[:8]
    return _read(reader, raw, path, digest, _functions(reader, path, code)), reader.faults


def _read(reader: Reader, raw: dict[str, Any], path: Path, digest: str, code: tuple[str, ...]) -> Definition:
    table = reader.table(raw, (), _KEYS)
    for key in ("title", "url"):
        if key not in raw and not (key == "url" and "request" in code):
            reader.faults.append(Fault(path.name, 1, key, "expected a text, found none"))
    form = table.one_of("format", FORMATS, _left_out(table))
    params = read_params(table)
    namespaces = _namespaces(table)
    fields = FieldReader(reader, form, list(params))
    before = _before(table, list(params))
    asked = read_ask(table, list(params), list(before.fields) if before else [], DEFAULT_EGRESS)
    if before is not None and not before.ask.egress:  # a token may only be valid for the same address
        before = replace(before, ask=replace(before.ask, egress=asked.egress))
    page = [PAGE_KINDS[form]]
    levels: list[Kinds] = list(page)
    rows, rows_re = _rows(fields, table, form, levels, code)
    found = fields.fields(table["fields"], ("fields",), levels) if "fields" in table else {}
    if "fields" not in table and form in ("html", "xml", "json") and "parse" not in code:
        reader.faults.append(Fault(path.name, 1, "fields", "expected a table of fields, found none"))
    _only_for(table, form)
    contract, empty, blocked = _contract(fields, table, page)
    if not asked.url and (named := asked.credentials()):
        table.fault("request", f"expected url, since {{{named[0]}}} is sent to its origin only, found none")
    any_host = table.flag("any_host")
    asked, before = _led(reader, asked, before, params, any_host=any_host)
    region = table.text("region")
    standby = table.texts("standby")
    for key, name in (("region", region), *(("standby", one) for one in standby)):
        if name and not _is_region(name):
            table.fault(key, f'expected a region\'s name ({names.REGION_PATTERN}), found "{name}"')
    pinned = table.flag("pinned")
    if pinned and standby:
        table.fault("pinned", "expected no standby beside it, since its data may not leave its region")
    charset = table.text("charset")
    if charset and not is_known(charset):
        table.fault("charset", f'expected a charset like windows-1250 or shift_jis, found "{charset}"')
    return Definition(
        id=_id(reader, path),
        title=table.text("title"),
        ask=asked,
        hash=digest,
        path=path,
        region=region,
        standby=standby,
        pinned=pinned,
        any_host=any_host,
        format=form,
        charset=charset,
        archive=table.text("archive"),
        params=params,
        before=before,
        rows=rows,
        rows_re=rows_re,
        fields=found,
        next=_next(fields, table, page, params, asked) if "next" in table else None,
        limits=read_limits(table),
        contract=contract,
        empty=empty,
        blocked=blocked,
        namespaces=namespaces,
        csv=read_csv(table),
        code=code,
    )


def _id(reader: Reader, path: Path) -> str:
    if not pattern.compiled(names.SOURCE_PATTERN).fullmatch(path.stem):
        reader.faults.append(
            Fault(
                path.name, None, "", f'expected a file name of {names.SOURCE_PATTERN} and ".toml", found "{path.name}"'
            )
        )
    return path.stem


def _left_out(table: Mapping[str, Any]) -> str:
    """The format of a definition that names none."""
    rows = table.get("rows")
    steps = rows.get("each", rows) if isinstance(rows, dict) else rows
    first = steps[0] if isinstance(steps, list) and steps else steps
    return "json" if isinstance(first, dict) and "jmes" in first else "html"


def _rows(
    fields: FieldReader, table: Table, form: str, levels: list[Kinds], code: tuple[str, ...]
) -> tuple[tuple[Selector, ...], str]:
    """``[rows]`` as steps, or the pattern of a text's rows. Appends the kinds of their items to ``levels``."""
    where = table.at("rows")
    raw = table.get("rows")
    if "parse" in code:
        if raw is not None:
            table.fault("rows", "expected no [rows]: the parse of ID.py yields them")
        levels.append(frozenset({ROW, VALUE}))
        return (), ""
    if form == "text":
        rows = table.table("rows", ("re",))
        expression = rows.text("re")
        if not expression:
            table.fault("rows", "expected re, a pattern whose named groups are the keys of a row, found none")
        else:
            fields.attempt(rows.at("re"), pattern.compiled, expression, "an RE2 pattern")
            if not pattern.names(expression):
                rows.fault("re", "expected named groups like (?P<name>…), found none")
        levels.append(frozenset({ROW}))
        return (), expression
    if raw is None or form in ("csv", "feed"):
        if raw is not None:
            row = "a line" if form == "csv" else "an entry"
            table.fault("rows", f"expected no [rows]: a row of {form} is {row}")
        if form in ("csv", "feed"):
            levels.append(frozenset({ROW}) if form == "csv" else PAGE_KINDS["feed"])
        return (), ""
    if isinstance(raw, dict) and "each" in raw:
        rows = table.table("rows", ("each",))
        return fields.steps(rows["each"], rows.at("each"), levels), ""
    return fields.steps(raw, where, levels, ("each",)), ""


def _contract(
    fields: FieldReader, definition: Table, page: list[Kinds]
) -> tuple[Contract, Selector | bool, Selector | None]:
    table = definition.table("contract", (*Contract.__struct_fields__, "empty", "blocked"))
    described = definition.get("fields")
    put_out = {name for name in described if not name.startswith("_")} if isinstance(described, dict) else None
    contract = read_contract(table, put_out)
    empty: Selector | bool = False
    if isinstance(table.get("empty"), bool):
        empty = table["empty"]
    elif "empty" in table:
        empty = fields.selector(table["empty"], table.at("empty"), page) or False
    wall = [page[0] | {ELEMENT}]  # a wall is HTML, whatever the format
    blocked = fields.selector(table["blocked"], table.at("blocked"), wall) if "blocked" in table else None
    return contract, empty, blocked


def _next(fields: FieldReader, definition: Table, page: list[Kinds], params: Mapping[str, Param], asked: Ask) -> Next:
    own = ("param", "start", "step", "link", "max_pages")
    raw = definition["next"]
    if not isinstance(raw, dict):
        definition.fault("next", f"expected a table, found {show(raw)}")
        return Next()
    table = Table(fields.reader, raw, ("next",))
    selecting = {key: value for key, value in raw.items() if key not in own}
    selector = fields.selector(selecting, table.where, page, own) if selecting else None
    param = table.text("param")
    link = table.flag("link")
    if param and param not in params:
        table.fault("param", f'expected one of [params], found "{param}"')
    elif param and not ask.mentions(asked, param):
        table.fault("param", f'expected a param that stands in url or [request], found "{param}"')
    if selector is None and not selecting and not param and not link:
        definition.fault("next", "expected a selector, param or link = true, found none")
    if link and (selecting or param):
        table.fault("link", "expected link = true alone, without a selector or param")
    return Next(
        selector=selector,
        param=param,
        start=table.whole("start", 1),
        step=table.whole("step", 1, low=1),
        link=link,
        max_pages=table.whole("max_pages", PAGES_MAX, low=1, high=10_000),
    )


def _before(definition: Table, params: list[str]) -> Before | None:
    if "before" not in definition:
        return None
    table = definition.table("before", ("url", "request", "format", "fields", "ttl_seconds"))
    form = table.one_of("format", ("html", "xml", "json"), "html")
    if "url" not in table:
        definition.fault("before", "expected url, found none")
    fields = FieldReader(table.reader, form, params)
    return Before(
        ask=read_ask(table, params),
        format=form,
        fields=fields.fields(table.get("fields", {}), table.at("fields"), [PAGE_KINDS[form]]),
        ttl_seconds=table.number("ttl_seconds", 0.0),
    )


def _led(
    reader: Reader, asked: Ask, before: Before | None, params: Mapping[str, Param], *, any_host: bool
) -> tuple[Ask, Before | None]:
    """The requests, completed by the hosts that their addresses may lead to."""
    led_by = {*leaders(asked.url), *(leaders(before.ask.url) if before is not None else ())}
    if any_host and not led_by:
        reader.fault(("any_host",), "expected it only if a param decides where an address leads")
    for name, param in params.items():
        if param.hosts and name not in led_by:
            reader.fault(
                ("params", name, "hosts"), "expected hosts only in a param that decides where an address leads"
            )
    asked = replace(asked, hosts=hosts_of(reader, asked.url, ("url",), params, any_host=any_host))
    if before is not None:
        led = hosts_of(reader, before.ask.url, ("before", "url"), params, any_host=any_host)
        before = replace(before, ask=replace(before.ask, hosts=led))
    for one in filter(None, (asked, before.ask if before is not None else None)):
        if ANY in one.hosts and (named := one.credentials()):
            message = (
                f"expected hosts of {', '.join(leaders(one.url))}, since {{{named[0]}}} would go wherever it leads"
            )
            reader.fault(("any_host",), message)
    return asked, before


def _namespaces(table: Table) -> dict[str, str]:
    found: dict[str, str] = table.of_type("namespaces", dict[str, str], {}, "a table of texts")
    for name, uri in found.items():
        if not name or not uri:
            table.reader.fault(table.at("namespaces", name), "expected a prefix and an address, found an empty one")
    return found


def _only_for(table: Table, form: str) -> None:
    for key, forms in (("csv", ("csv",)), ("namespaces", ("xml", "feed", "html"))):
        if key in table and form not in forms:
            table.fault(key, f"expected it only with the format {' or '.join(forms)}, found {form}")


def _is_region(name: str) -> bool:
    return bool(pattern.compiled(names.REGION_PATTERN).fullmatch(name))


def _functions(reader: Reader, path: Path, code: bytes) -> tuple[str, ...]:
    """The functions that ID.py defines, found by parsing it. The gateway never runs an author's code."""
    if not code:
        return ()
    name = path.with_suffix(".py").name
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        reader.faults.append(Fault(name, line, "", f"expected Python, found: {error}"))
        return ()
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    found = tuple(one for one in CODE_NAMES if one in defined)
    if not found:
        reader.faults.append(Fault(name, None, "", f"expected one of {', '.join(CODE_NAMES)}, found none"))
    return found
