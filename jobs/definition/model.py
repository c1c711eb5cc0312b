"""What a source's definition is: the values that ``jobs.definition.read`` makes of its TOML file.

Nothing here needs lxml or requests: the gateway uses definitions too. ``jobs.parse.source`` compiles one for a worker.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from jobs.definition import schema
from jobs.definition.ask import Ask
from jobs.definition.delimited import Csv
from jobs.definition.field import Field, Selector
from jobs.definition.limits import Contract, Limits
from jobs.definition.params import BadParams, Param, bind
from jobs.origin import fixed_origin
from jobs.text import pattern

__all__ = ["BadParams", "Before", "Csv", "Definition", "Next", "fixed_hosts", "limits_of"]

PAGES_MAX: Final = 10  # default of [next] max_pages


class Next(Struct, frozen=True, kw_only=True):
    """How the next page is found: an address or a cursor for ``param`` that ``selector`` finds, a counted ``param``, or a Link header."""

    selector: Selector | None = None
    param: str = ""
    start: int = 1
    step: int = 1
    link: bool = False
    max_pages: int = PAGES_MAX


class Before(Struct, frozen=True, kw_only=True):
    """A request that goes first, for values of the real one. They are kept for ``ttl_seconds``."""

    ask: Ask
    format: str = "html"
    fields: dict[str, Field] = {}
    ttl_seconds: float = 0.0


class Definition(Struct, frozen=True, kw_only=True):
    """A source as its file describes it. ``hash`` is that of the file, together with its ID.py if there is one."""

    id: str
    title: str
    ask: Ask
    hash: str
    path: Path
    region: str = ""  # "" means the first region
    standby: tuple[str, ...] = ()  # regions that take over when its own can't answer, the first choice first
    pinned: bool = False  # its data may not leave its region
    any_host: bool = False  # clients may lead it to any host, if the region allows that
    format: str = "html"
    charset: str = ""
    archive: str = ""
    params: dict[str, Param] = {}
    before: Before | None = None
    rows: tuple[Selector, ...] = ()
    rows_re: str = ""
    fields: dict[str, Field] = {}
    next: Next | None = None
    limits: Limits = Limits()
    contract: Contract = Contract()
    empty: Selector | bool = False  # zero rows are right if this finds something, or always
    blocked: Selector | None = None
    namespaces: dict[str, str] = {}
    csv: Csv = Csv()
    code: tuple[str, ...] = ()  # functions that ID.py defines

    def regions(self, own: str) -> tuple[str, ...]:
        """Where it may run: its ``own`` region, then its standbys."""
        return (own,) if self.pinned else (own, *(one for one in self.standby if one != own))

    @property
    def url(self) -> str:
        """The template of the address."""
        return self.ask.url

    def bind(
        self, params: Mapping[str, object], *, text: bool = False, chars_max: int | None = None
    ) -> dict[str, object]:
        """Params with types and defaults, by ``jobs.definition.params.bind``. Raises ``BadParams``."""
        counted = self.next.param if self.next is not None and self.next.selector is None else ""
        if not counted or self.next is None:
            return bind(self.params, params, text=text, chars_max=chars_max)
        first = self._counted(self.next)
        if not text and counted in params and params[counted] == first and not self.params[counted].required:
            given = {name: value for name, value in params.items() if name != counted}
            bound = bind(self.params, given, text=text, chars_max=chars_max)
            return {**bound, counted: first}  # its default, which need not fit the param
        bound = bind(self.params, params, text=text, chars_max=chars_max)
        bound.setdefault(counted, first)
        return bound

    def _counted(self, following: Next) -> int | str:
        param = self.params.get(following.param)
        return following.start if param is not None and param.type == "int" else str(following.start)

    def expand(self, params: Mapping[str, object]) -> str:
        """The address for bound params. Raises ValueError if they make none."""
        return self.ask.expand(params)

    def schema(self) -> dict[str, Any]:
        """JSON Schema of a record."""
        return schema.of_record(self.title, self.fields, self.contract.required, self._keys())

    def _keys(self) -> list[str] | None:
        """The names of the rows' keys, for a definition without fields; None if only an answer shows them."""
        if self.rows_re:
            return pattern.names(self.rows_re)
        if self.format == "feed":
            return list(schema.FEED_KEYS)
        return list(self.csv.names) or None


def fixed_hosts(definition: Definition) -> set[str]:
    """The hosts that a source is sure to ask, whatever its params; also that of ``[before]``."""
    asks = [definition.ask] if definition.before is None else [definition.ask, definition.before.ask]
    return {fixed_origin(ask.url) for ask in asks} - {""}


def limits_of(definitions: Iterable[Definition]) -> dict[str, str]:
    """What sources allow, by source and by host: "AT_ONCE MS_BETWEEN", for a host the strictest of its sources.

    A source whose params decide its host has only its own; it holds at every host that the source asks.
    """
    found: dict[str, tuple[int, float]] = {}
    for one in definitions:
        rate = one.limits.rate_per_second
        own = (one.limits.concurrency, 1000 / rate if rate else 0.0)
        for name in (one.id, *fixed_hosts(one)):
            most, every = found.get(name, own)
            found[name] = min(most, own[0]), max(every, own[1])
    return {name: f"{most} {every:.3f}" for name, (most, every) in found.items()}
