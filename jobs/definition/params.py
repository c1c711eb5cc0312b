"""The params of a source, which clients choose: names, types, defaults, limits; and how values are bound to them."""

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from msgspec import Struct

from jobs.definition import field, hosts
from jobs.definition.reader import Reader, Table, Where, show
from jobs.text import dates, pattern, values
from regions.faults import nearest

RESERVED: Final = ("wait", "max_age", "deadline")  # parameters of the HTTP API itself
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LENGTH: Final = "a length"
NAMES_MAX: Final = 32  # faults that one answer lists

_KEYS: Final = ("type", "required", "default", "example", "enum", "pattern", "min", "max", "title", "hosts")
_INT: Final = re.compile(r"[+-]?\d{1,18}")
_DECIMAL: Final = re.compile(r"[+-]?(?:\d{1,40}(?:\.\d{1,40})?|\.\d{1,40})")
_NUMERIC: Final = ("int", "decimal", "float")
_EXPECTED: Final = {
    "str": "a text",
    "url": "an http or https address",
    "int": "a whole number of 18 digits at most",
    "decimal": "a decimal number (in JSON as a text or a number)",
    "float": "a number",
    "bool": "true or false",
    "date": "a date like 2026-11-24",
    "datetime": "a time like 2026-11-24T04:14:00Z",
    "duration": "a duration like PT1H30M",
}


class BadParams(ValueError):  # noqa: N818 - a plural, since it carries all faults
    """All faults in the params of one source: (name, expected and found)."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name}: {detail}" for name, detail in faults))
        self.faults = faults


class Param(Struct, frozen=True, kw_only=True):
    """One param. ``min`` and ``max`` bound a number, a date or duration (as text), or the length of a text."""

    type: str = "str"
    required: bool = False
    default: Any = None
    example: Any = None
    enum: tuple[Any, ...] = ()
    pattern: str = ""
    min: Any = None
    max: Any = None
    title: str = ""
    hosts: tuple[str, ...] = ()  # to which it may lead an address (jobs.definition.hosts)

    def value(self, given: Any, *, text: bool, chars_max: int | None = None) -> Any:
        """A value as tasks have it (JSON; decimals, dates and addresses are texts). Raises ValueError: expected, found.

        ``chars_max`` limits the length of texts that have no ``max``.
        """
        has_length = self.max is not None and _bound(self.type) == LENGTH
        if chars_max is not None and not has_length and isinstance(given, str) and len(given) > chars_max:
            raise ValueError(f"expected {chars_max} characters at most, found {len(given)}")
        value = _typed(self.type, given, text=text)
        if self.enum and value not in self.enum:
            raise ValueError(f"expected one of {', '.join(map(str, self.enum))}, found {show(given)}")
        if self.pattern and not pattern.compiled(self.pattern).fullmatch(values.shown(value)):
            raise ValueError(f"expected a text like {self.pattern}, found {show(given)}")
        size = _size(self.type, value)
        if self.min is not None and size < _size(self.type, self.min, bound=True):
            raise ValueError(f"expected {_bound(self.type)} from {self.min}, found {show(given)}")
        if self.max is not None and size > _size(self.type, self.max, bound=True):
            raise ValueError(f"expected {_bound(self.type)} up to {self.max}, found {show(given)}")
        return value


def bind(
    params: Mapping[str, Param], given: Mapping[str, object], *, text: bool, chars_max: int | None = None
) -> dict[str, object]:
    """The values of all params that have one, in the order of the definition. Raises ``BadParams``.

    ``text``: all values are texts, as in a query string; otherwise each has the JSON type of its param. ``chars_max`` is that
    of ``Param.value``.
    """
    faults: list[tuple[str, str]] = []
    for name in given:
        if len(faults) == NAMES_MAX:  # a body has room for 80,000 names, and each costs a search for the nearest
            break
        if name not in params:
            known = nearest(name, params) if params else "; the source has none"
            faults.append((name, f'unknown param "{name[:60]}"{known}'))
    bound: dict[str, object] = {}
    for name, param in params.items():
        found = given.get(name)
        missing = found is None or (found == "" and (param.required or param.type != "str"))
        if missing and param.required:
            faults.append((name, f"expected a value, found none: {name} is required"))
        elif missing:
            if param.default is not None:
                bound[name] = param.default
        else:
            try:
                bound[name] = param.value(found, text=text, chars_max=chars_max)
            except ValueError as error:
                faults.append((name, str(error)))
    if faults:
        raise BadParams(faults[:NAMES_MAX])
    return bound


def read_params(definition: Table) -> dict[str, Param]:
    """``[params]``: a table of tables."""
    reader = definition.reader
    params = {}
    for name, one in definition.table("params", definition.get("params", ())).items():
        at = definition.at("params", name)
        if name in RESERVED:
            reader.fault(at, f'expected another name than "{name}": the HTTP interface has a parameter of that name')
        elif not NAME.fullmatch(name):
            reader.fault(at, f'expected a name of letters, digits and "_", found "{name}"')
        params[name] = _read(reader.table(one, at, _KEYS))
    return params


def _read(table: Table) -> Param:
    reader = table.reader
    kind = table.one_of("type", field.TYPES, "str")
    expression = table.text("pattern")
    if expression:
        try:
            pattern.compiled(expression)
        except ValueError as error:
            table.fault("pattern", f'expected an RE2 pattern, found "{expression}": {error}')
            expression = ""
    required = table.flag("required")
    if required and "default" in table:
        table.fault("default", "expected no default for a param that is required")
    enum = []
    for index, value in enumerate(table.of_type("enum", list[Any], [], "a list of values")):
        enum.append(_checked(reader, table.at("enum", index), Param(type=kind), value))
    bounds = {}
    for key in ("min", "max"):
        bounds[key] = table.get(key)
        try:
            _size(kind, table[key], bound=True) if key in table else None
        except (ValueError, TypeError, InvalidOperation):
            table.fault(key, f"expected a bound for {kind}, found {show(table[key])}")
            bounds[key] = None
    param = Param(
        type=kind,
        required=required,
        enum=tuple(enum),
        pattern=expression,
        title=table.text("title"),
        hosts=hosts.read_hosts(reader, table.texts("hosts"), table.at("hosts")),
        **bounds,
    )
    kept = {
        key: _checked(reader, table.at(key), param, table[key]) if key in table else None
        for key in ("default", "example")
    }
    return Param(**{**{name: getattr(param, name) for name in param.__struct_fields__}, **kept})


def _checked(reader: Reader, where: Where, param: Param, value: Any) -> Any:
    try:
        return param.value(value, text=False)
    except ValueError as error:
        reader.fault(where, str(error))
        return None


def _typed(kind: str, given: Any, *, text: bool) -> Any:
    try:
        found = _from_text(kind, given) if text else _from_json(kind, given)
    except (ValueError, InvalidOperation) as error:
        raise ValueError(f"expected {_EXPECTED[kind]}, found {show(given)}") from error
    if isinstance(found, str):
        if "\0" in found:
            raise ValueError(f"expected {_EXPECTED[kind]} without U+0000, found one")
        if any(0xD800 <= ord(character) <= 0xDFFF for character in found):
            raise ValueError(f"expected {_EXPECTED[kind]} of whole characters, found half of a surrogate pair")
    return found


def _from_text(kind: str, given: Any) -> Any:
    if not isinstance(given, str):
        raise ValueError("no text")  # noqa: TRY004 - the caller reports a wrong value
    if kind == "int":
        if not _INT.fullmatch(given):
            raise ValueError("no int")
        return int(given)
    if kind == "float":
        return _finite(float(given))
    if kind == "bool":
        lowered = given.lower()
        if lowered not in values.TRUE | values.FALSE:
            raise ValueError("no bool")
        return lowered in values.TRUE
    return _written(kind, given)


def _from_json(kind: str, given: Any) -> Any:
    if kind == "bool":
        if not isinstance(given, bool):
            raise ValueError("no bool")
        return given
    if isinstance(given, bool):
        raise ValueError("a bool")  # noqa: TRY004
    if kind == "int":
        if not isinstance(given, int) or abs(given) >= 10**18:
            raise ValueError("no int")
        return given
    if kind == "float":
        if not isinstance(given, int | float):
            raise ValueError("no number")
        return _finite(float(given))
    if kind == "decimal" and isinstance(given, int | float):
        return _written(kind, f"{Decimal(repr(given)):f}")
    if not isinstance(given, str):
        raise ValueError("no text")  # noqa: TRY004 - the caller reports a wrong value
    return _written(kind, given)


def _written(kind: str, given: str) -> str:
    """A checked text, for types whose values stay texts."""
    if kind == "decimal" and not _DECIMAL.fullmatch(given):
        raise ValueError("no decimal")
    if kind == "date" and not dates.is_date(given):
        raise ValueError("no date")
    if kind == "datetime":
        dates.datetime_parser((dates.ISO,), "", "UTC")(given)
    if kind == "duration":
        dates.duration(given)
    if kind == "url" and not re.match(r"https?://[^/\s]+", given):
        raise ValueError("no address")
    return given


def _finite(value: float) -> float:
    if value != value or abs(value) == float("inf"):  # noqa: PLR0124 - NaN does not equal itself
        raise ValueError("no finite number")
    return value


def _size(kind: str, value: Any, *, bound: bool = False) -> Any:
    """The size that ``min`` and ``max`` bound."""
    if kind in _NUMERIC:
        if isinstance(value, bool):
            raise TypeError("a bool is no bound")
        return Decimal(str(value))
    if kind == "date":
        if not isinstance(value, str) or not dates.is_date(value):
            raise ValueError("no date")
        return value
    if kind == "duration":
        return dates.duration(value)
    if bound:
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError("no length")
        return value
    return len(str(value))


def _bound(kind: str) -> str:
    return "a value" if kind in (*_NUMERIC, "date", "duration") else LENGTH
