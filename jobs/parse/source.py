"""A definition, compiled for one thread: it makes requests and reads pages. Threads must not share one.

first(params, secrets) → Request … fetch … → Page
parse(page) → absent? → blocked? → status → rows (format, [rows], [fields]) → empty? → next Request
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final
from urllib.parse import urljoin

import re2
from lxml import etree

from jobs import memory
from jobs.definition import ask
from jobs.definition.field import ELEMENT, PAGE_KINDS, PAGE_URL, ROW, VALUE, Selector
from jobs.definition.model import Before, Definition
from jobs.definition.schema import FEED_KEYS
from jobs.errors import (
    Blocked,
    BlockedAddress,
    HttpStatus,
    Internal,
    ParseFailed,
    RateLimited,
    TaskError,
    TooLarge,
    is_passing,
)
from jobs.origin import origin_or_none
from jobs.page import Page, Request
from jobs.parse import feed, plain_text, xpath_faults
from jobs.parse.author_code import Code
from jobs.parse.feed_namespaces import NAMESPACES
from jobs.parse.paging import Paging
from jobs.parse.record import Plan, Scope
from jobs.parse.select import Compiler, FindAll, Shape
from jobs.parse.warnings import Warnings
from jobs.text import values
from jobs.text.values import BadValue
from regions.faults import Fault, Faults

ROWS_MAX: Final = 500_000  # on a page; the limits of records are lower
WEIGHED_ROWS: Final = 100  # records whose memory is reserved at a time; fewer take too little
ITEM_BYTES: Final = 100  # memory of a row's element while it is read

_BASE: Final = etree.XPath("string((//base/@href)[1])", smart_strings=False)
_XML_BASE: Final = re2.compile(rb"xml:base")  # many times as fast as a search in bytes


@dataclass(slots=True)
class Parsed:
    """The records of a page. ``absent``: its status means zero rows; ``empty``: the page itself says that zero rows are right.

    ``is_cut``: more pages exist, but can't be asked for. ``bad_required`` lists bad values in required fields, for
    ``contract_check``. There are at most ten ``warnings``.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    next: Request | None = None
    is_cut: bool = False
    is_counted: bool = False  # pages are counted, and none says whether another one follows
    body_hash: int = 0  # 0 if the source has only one page
    bad_required: list[str] = field(default_factory=list)
    absent: bool = False
    empty: bool = False


class Source:
    """A compiled definition. Raises ``Faults`` with every bad XPath, and with what ID.py raises when it is loaded."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._compiler = compiler(definition)
        self._page = Shape((PAGE_KINDS[definition.format],))
        try:
            self._code = code(definition)
            self._compile()
        except Faults as error:
            raise Faults([*xpath_faults.faults(definition, self._compiler), *error.faults]) from error
        except ValueError as error:
            found = xpath_faults.faults(definition, self._compiler)
            raise Faults(found or [Fault(definition.path.name, None, "", str(error))]) from error

    def _compile(self) -> None:
        definition = self.definition
        shape = self._page
        self._steps: list[FindAll] = []
        for step in definition.rows:
            self._steps.append(self._compiler.step(step, shape))
            shape = shape.inside(step)
        if self._code is not None and self._code.has("parse"):
            shape = shape.deeper(frozenset({ROW, VALUE}))
        elif definition.format in ("feed", "csv", "text"):
            shape = shape.deeper(PAGE_KINDS["feed"] if definition.format == "feed" else frozenset({ROW}))
        self._plan = Plan(self._compiler, definition.fields, shape) if definition.fields else None
        self._required = frozenset(definition.contract.required)
        page, finds = self._page, self._compiler.finds
        self._empty = finds(definition.empty, page) if isinstance(definition.empty, Selector) else None
        wall = Shape((page.kinds[0] or frozenset({ELEMENT}),))
        self._blocked = finds(definition.blocked, wall) if definition.blocked is not None else None
        self._paging = Paging(definition, self._code, self._compiler, page)
        self._before = self._compile_before(definition.before)

    def _compile_before(self, before: Before | None) -> Plan | None:
        if before is None:
            return None
        return Plan(Compiler(before.format, {}), before.fields, Shape((PAGE_KINDS[before.format],)))

    # ── asking ──

    def first(
        self,
        params: Mapping[str, Any],
        secrets: Mapping[str, str],
        before: Mapping[str, Any] | None = None,
    ) -> Request:
        """The first request for bound params. ``secrets`` are the region's; ``before`` comes from ``before_values``.

        Raises Internal (origin region) if a secret is missing, and BlockedAddress if the params lead to a host that the
        definition does not name.
        """
        return self._request(secrets, before or {}, params)

    def _request(self, secrets: Mapping[str, str], before: Mapping[str, Any], params: Mapping[str, Any]) -> Request:
        request = self._made(self.definition.ask, params, secrets, before)
        if self._code is not None and self._code.has("request"):
            own = self._code.request(params)
            if self.definition.ask.credentials() and origin_or_none(own.url) != origin_or_none(request.url):
                named, found = origin_or_none(request.url), origin_or_none(own.url) or "none"
                raise BlockedAddress(
                    f"expected an address of {named}, which the definition names, found one of {found}"
                )
            request = replace(
                own,
                headers={**request.headers, **own.headers},
                cookies={**request.cookies, **own.cookies},
                params=dict(own.params) or dict(params),
            )
        return replace(request, again=partial(self._request, secrets, before))

    def before(self, params: Mapping[str, Any], secrets: Mapping[str, str]) -> Request | None:
        """The request of ``[before]``, which goes first; None without one."""
        before = self.definition.before
        return self._made(before.ask, params, secrets, {}) if before is not None else None

    def before_values(self, page: Page) -> dict[str, Any]:
        """The values of ``[before.fields]``. Raises HttpStatus, and ParseFailed (also for a missing value)."""
        before = self.definition.before
        assert before is not None
        assert self._before is not None
        _check_status(page)
        scope = Scope(base=page.url, warnings=Warnings(), params=page.params, row=1)
        root = {"html": lambda: page.html, "xml": lambda: page.xml, "json": lambda: page.json}[before.format]()
        found = self._before.make([root], scope, {**page.params, PAGE_URL: page.url}) or {}
        missing = [name for name in before.fields if not name.startswith("_") and found.get(name) is None]
        if missing:
            raise ParseFailed(f"expected {', '.join(missing)} on the page of [before], found none")
        return found

    def _made(
        self,
        asked: ask.Ask,
        params: Mapping[str, Any],
        secrets: Mapping[str, str],
        before: Mapping[str, Any],
    ) -> Request:
        missing = [name for name in asked.secrets() if name not in secrets]
        if missing:
            raise Internal(f"expected the secret {missing[0]} with the region's workers, found none", origin="region")
        names = {
            **params,
            **{f"secret.{name}": secrets[name] for name in asked.secrets()},
            **{f"before.{name}": value for name, value in before.items()},
        }
        url = address(asked, params)
        made = ask.make(asked, names)
        return Request(
            method=made.method, url=url, headers=made.headers, cookies=made.cookies, body=made.body,
            params=dict(params), egress=asked.egress,
        )  # fmt: skip

    # ── reading ──

    def parse(self, page: Page) -> Parsed:
        """The records of a page, and the request for the next one.

        Raises Blocked, HttpStatus or RateLimited for a status other than 2xx, DecodeFailed, ParseFailed, TooLarge.
        """
        page.charset = page.charset or self.definition.charset
        self._compiler.warnings.clear()
        max_bytes = self.definition.limits.max_bytes
        if page.body.startswith(plain_text.GZIP):  # no text begins so: a .gz file, whatever its headers say
            page = replace(page, body=plain_text.unpacked(page.body, max_bytes))
        if page.status in self.definition.contract.absent:
            return Parsed(absent=True)
        self._check_blocked(page)
        _check_status(page)
        if self.definition.archive:
            page = replace(page, body=plain_text.member(page.body, self.definition.archive, max_bytes))
        root = self._root(page)
        scope = Scope(self._base(page, root), Warnings(), page.params, self._required)
        scope.is_based = self.definition.format in ("feed", "xml") and _XML_BASE.search(page.utf8) is not None
        rows: list[dict[str, Any]] = []
        for row in self._rows(page, root, scope):
            rows.append(row)
            if len(rows) > ROWS_MAX:
                raise TooLarge(f"expected at most {ROWS_MAX} rows on a page, found more")
            if not len(rows) % WEIGHED_ROWS:
                memory.reserve(memory.rows_bytes(rows[-WEIGHED_ROWS:]), f"{len(rows)} records so far")
        if scope.row and not rows and self._steps:
            scope.warnings.add(("[rows]", ""), f"[rows] found {scope.row} items, but no field found anything in them")
        following = self._paging.following(page, root, scope.base, has_rows=bool(rows))
        last = [*dict.fromkeys(self._compiler.warnings), *([following.warning] if following.warning else [])]
        last = last[-Warnings.LINES_MAX :]
        return Parsed(
            rows=rows,
            warnings=[*(page.warnings + scope.warnings.texts())[: Warnings.LINES_MAX - len(last)], *last],
            next=following.request,
            is_cut=following.is_cut,
            is_counted=self._paging.is_counted,
            body_hash=hash(page.body) if self._paging.is_any else 0,
            bad_required=scope.bad_required,
            empty=not rows and self._is_empty(root),
        )

    def _root(self, page: Page) -> Any:
        """The item of level 0."""
        form = self.definition.format
        if form == "html":
            return page.html
        if form == "xml":
            return page.xml
        if form == "json":
            return page.json
        if form != "feed":
            return None
        warnings: list[str] = []
        root = feed.read(page.utf8, warnings, frozenset(self.definition.namespaces.values()))
        # [contract] blocked may have read it before.
        page.warnings += [one for one in warnings if one not in page.warnings]
        return feed.Channel(root, page.url if _XML_BASE.search(page.utf8) is not None else "")

    def _rows(self, page: Page, root: Any, scope: Scope) -> Iterator[dict[str, Any]]:
        plan, outer = self._plan, {**page.params, PAGE_URL: page.url}
        for levels in self._levels(page, root, scope.warnings):
            scope.row += 1
            if plan is None:
                yield _as_it_is(levels[-1])
                continue
            record = plan.make(levels, scope, outer)
            if record is not None:
                yield record

    def _levels(self, page: Page, root: Any, warnings: Warnings) -> Iterator[list[Any]]:
        """For each row its items, one per level, the page first."""
        form = self.definition.format
        items: Iterable[Any]
        if self._code is not None and self._code.has("parse"):
            items = self._code.parse(page)
        elif form == "feed":
            items = root.entries()
        elif form == "csv":
            items = plain_text.csv_rows(page.text, self.definition.csv, warnings)
        elif form == "text":
            items = plain_text.text_rows(page.text, self.definition.rows_re)
        else:
            yield from self._stepped([root], 0)
            return
        for item in items:
            yield [root, item]

    def _stepped(self, levels: list[Any], depth: int) -> Iterator[list[Any]]:
        if depth == len(self._steps):
            yield levels
            return
        try:
            items = self._steps[depth](levels)
        except BadValue as error:
            raise ParseFailed(f"[rows], step {depth + 1}: {error}") from error
        if len(items) > WEIGHED_ROWS:
            memory.reserve(len(items) * ITEM_BYTES, f"{len(items)} rows")
        if depth + 1 == len(self._steps):
            for item in items:
                yield [*levels, item]
            return
        for item in items:
            yield from self._stepped([*levels, item], depth + 1)

    def _base(self, page: Page, root: Any) -> str:
        # lxml knows at once if no element has this name; XPath looks at every element.
        if self.definition.format != "html" or next(root.iter("base"), None) is None:
            return page.url
        try:
            base = urljoin(page.url, str(_BASE(root)).strip())
        except ValueError:
            return page.url
        return base if base.startswith(("http://", "https://")) else page.url

    def _check_blocked(self, page: Page) -> None:
        if self._blocked is None:
            return
        selector = self.definition.blocked
        assert selector is not None
        try:
            # A wall in front of an API is HTML; css and xpath read it as such.
            as_page = ELEMENT not in self._page.kinds[0] and selector.language in ("css", "xpath", "jsonld")
            is_blocked = self._blocked([page.html if as_page else self._root(page)])
        except (TaskError, BadValue):
            return  # unreadable, so not recognisable as a wall; parsing it will fail with the reason
        if is_blocked:
            raise Blocked("the page is a wall, not the page that was asked for", http_status=page.status)

    def _is_empty(self, root: Any) -> bool:
        if self._empty is None:
            return self.definition.empty is True
        try:
            return bool(self._empty([root]))
        except BadValue:
            return False


def address(asked: ask.Ask, params: Mapping[str, Any]) -> str:
    """The address for these params; "" if only ID.py makes one. Raises BlockedAddress for a host that is not named."""
    try:
        return asked.expand(params) if asked.url else ""
    except ValueError as error:
        raise BlockedAddress(str(error)) from error


def compiler(definition: Definition) -> Compiler:
    """The compiler for a definition's selectors, with its namespaces."""
    is_feed = definition.format == "feed"
    return Compiler(definition.format, {**(NAMESPACES if is_feed else {}), **definition.namespaces})


def code(definition: Definition) -> Code | None:
    """The definition's ID.py, loaded; None without one. Raises ``Faults`` with the error that it raises."""
    return Code(definition.path.with_suffix(".py"), definition.code) if definition.code else None


def _check_status(page: Page) -> None:
    """Raises the error of a status other than 2xx."""
    status = page.status
    if 200 <= status < 300:
        return
    wait = page.header("retry-after").strip()
    after = float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 6 else None
    if status == 429:
        raise RateLimited("the target answered 429", http_status=status, retry_after=after)
    raise HttpStatus(
        f"expected a page, found status {status}", http_status=status, retry_after=after, retryable=is_passing(status)
    )


def _as_it_is(row: Any) -> dict[str, Any]:
    """The record of a row if the source has no fields."""
    if isinstance(row, feed.Entry):
        return {key: row.get(key) for key in FEED_KEYS}
    return {key: values.clean(value) for key, value in row.items()}
