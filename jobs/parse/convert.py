"""Converts a selected text or JSON value by the keys of its field, always in this order.

    fold white space → re → map → type → scale   (and for a list: → join)

None stands for nothing at every step. An unreadable value raises ``BadValue``. Results are JSON values, and Decimals, which
msgspec encodes as texts.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from jobs.definition.field import Value
from jobs.text import dates, numbers, pattern
from jobs.text.affixes import Refused
from jobs.text.urljoin import absolute
from jobs.text.values import FALSE, LONG, TRUE, BadValue, Number, clean, exact_of, folded, lines_of, text_of

_MISSING: Final = object()
Convert = Callable[[Any, str], Any]  # (selected value, base of addresses) → value, None for nothing
Doubt = Callable[[str, str], None]  # (text, why it may be another value), for the result's warnings
Parse = Callable[[str, str, Any], Any]  # (text, base of addresses, factor) → value of the type; raises BadValue


def as_it_is(value: Any, _base: str) -> Any:
    """A folded text, None for an empty one. Other JSON values stay as they are."""
    if type(value) is str:
        return (" ".join(value.split()) if len(value) <= LONG else folded(value)) or None
    return clean(value)


def converter(spec: Value, doubt: Doubt | None = None) -> Convert:
    """The function that converts one match by a field's keys."""
    is_bool = spec.type == "bool"
    search = pattern.finder(spec.re) if spec.re else None
    fold = folder(spec)
    parse = _parser(spec, doubt)
    if search is None and not spec.map and parse is None:
        return _texts(spec)
    if search is None and not spec.map and parse is not None:
        return _typed(spec, fold, parse)
    finish, finish_json = finisher(spec, doubt), finisher(spec, doubt, is_json=True)

    def convert(found: Any, base: str) -> Any:
        text = "" if found is None else fold(found)
        if not text:
            return None
        if search is not None:
            match = search(text)
            if is_bool:
                return match is not None
            if not match:
                return None
            text = match
        if finish is None or finish_json is None:
            return text
        return finish(text, base) if type(found) is str else finish_json(text, base)

    return convert


def folder(spec: Value) -> Callable[[Any], str]:
    """The function that makes the text of a selected value."""
    return lines_of if spec.lines else text_of if spec.fold else exact_of


def _texts(spec: Value) -> Convert:
    """Converts a value without re, map and type."""
    if spec.lines:
        return lambda found, _base: lines_of(found) or None
    return as_it_is if spec.fold else lambda found, _base: clean(found) if found != "" else None


def _typed(spec: Value, fold: Callable[[Any], str], parse: Parse) -> Convert:
    """Converts a value with a type but without re and map, as most fields have it."""
    by = numbers.factor(spec.scale) if spec.scale else None
    kinds, take = _AS_NUMBER.get(spec.type, _NO_NUMBER) if by is None else _NO_NUMBER
    parse_json = _parser(spec, is_json=True) or parse

    def convert(found: Any, base: str) -> Any:
        if type(found) is str:
            text = " ".join(found.split()) if fold is text_of and len(found) <= LONG else fold(found)
            return parse(text, base, by) if text else None
        if found is None:
            return None
        if type(found) in kinds:
            return take(found)
        text = fold(found)
        return parse_json(text, base, by) if text else None

    return convert


def finisher(spec: Value, doubt: Doubt | None = None, *, is_json: bool = False) -> Convert | None:
    """The function for the steps after ``re`` (map, type and scale), for a text that is not empty; None if there are none.

    ``is_json`` is for numbers of JSON, of XPath and in ``map``: their decimal mark is a point, whatever texts use.
    """
    mapping, parse, parse_json = spec.map, _parser(spec, doubt, is_json=is_json), _parser(spec, doubt, is_json=True)
    by = numbers.factor(spec.scale) if spec.scale else None
    expected = f"one of {', '.join(list(mapping)[:12])}"
    if not mapping and parse is None:
        return None

    def finish(text: str, base: str) -> Any:
        if not mapping:
            assert parse is not None
            return parse(text, base, by)
        value = mapping.get(text, _MISSING)
        if value is _MISSING:
            value = mapping.get("*", _MISSING)
        if value is _MISSING:
            raise BadValue(text, expected)
        if parse is None or parse_json is None:
            return value
        return parse(text_of(value), base, by) if type(value) is str else parse_json(text_of(value), base, by)

    return finish


def _parser(spec: Value, doubt: Doubt | None = None, *, is_json: bool = False) -> Parse | None:
    """How a text becomes a value of the field's type; None without a type."""
    if spec.type == "str":
        return _str
    if spec.type == "url":
        return _url
    if spec.type == "bool":
        return _bool
    if spec.type in ("int", "decimal", "float"):
        mark = "." if is_json else spec.decimal_mark
        return _number(spec.type, mark, doubt, is_count=spec.type == "int" and not (spec.scale or is_json))
    if spec.type == "duration":
        return _duration
    if spec.type in ("date", "datetime"):
        return _time(spec, doubt)
    return None


def _time(spec: Value, doubt: Doubt | None) -> Parse:
    noted: list[str] = []
    note = noted.append if doubt is not None else None
    read = (
        dates.datetime_parser(spec.format, spec.lang, spec.tz, spec.to_tz, note)
        if spec.type == "datetime"
        else dates.date_parser(spec.format, spec.lang, note)
    )
    expected = f"a {spec.type} ({' or '.join(spec.format or (dates.ISO,))})"

    def parse(text: str, _base: str, _by: Any) -> str:
        try:
            made = read(text)
        except (ValueError, OverflowError) as error:
            noted.clear()
            raise BadValue(text, expected, str(error) if isinstance(error, dates.Refused) else "") from error
        if noted and doubt is not None:
            doubt(text, noted[0])
            noted.clear()
        return made

    return parse


_BEYOND_FLOAT: Final = 'too large for a float; use type = "decimal"'


def _finite(number: float) -> float:
    try:
        found = float(number)
    except OverflowError as error:
        raise BadValue(str(number), "a number", _BEYOND_FLOAT) from error
    if abs(found) == float("inf"):
        raise BadValue(text_of(number), "a number", _BEYOND_FLOAT)
    return found


# JSON numbers that have their type already.
_AS_NUMBER: Final[dict[str, tuple[tuple[type, ...], Callable[[Any], Any]]]] = {
    "int": ((int,), int),
    "decimal": ((int,), Decimal),
    "float": ((int, Number), _finite),
}
_NO_NUMBER: Final[tuple[tuple[type, ...], Callable[[Any], Any]]] = ((), float)


def _str(text: str, _base: str, _by: Any) -> str:
    return text


def _url(text: str, base: str, _by: Any) -> str:
    try:
        return absolute(text, base)
    except ValueError as error:
        raise BadValue(text, "an address") from error


def _bool(text: str, _base: str, _by: Any) -> bool:
    lowered = text.lower()
    if lowered in TRUE:
        return True
    if lowered in FALSE:
        return False
    raise BadValue(text, "a bool (true, false, yes, no, 1, 0, on, off)")


def _number(kind: str, mark: str, doubt: Doubt | None, *, is_count: bool) -> Parse:
    noted: list[str] = []
    read = numbers.parser(mark, noted.append if doubt is not None else None, is_count=is_count)
    expected = "exactly one whole number" if kind == "int" else "exactly one number"

    def with_doubt(found: Any, text: str) -> Any:
        assert doubt is not None
        doubt(text, noted[0])
        noted.clear()
        return found

    def parse(text: str, _base: str, by: Any) -> Any:
        try:
            found = read(text) if by is None else numbers.scaled(read(text), by)
            if kind == "int":
                return with_doubt(numbers.whole(found), text) if noted else numbers.whole(found)
        except Refused as error:
            noted.clear()
            raise BadValue(text, expected, str(error)) from error
        except ValueError as error:
            noted.clear()
            raise BadValue(text, expected) from error
        if noted:
            with_doubt(found, text)
        if kind == "decimal":
            return found if "E" not in str(found) else f"{found:f}"  # results show no exponent
        made = float(found)
        if abs(made) == float("inf") or (not made and found):
            raise BadValue(text, expected, _BEYOND_FLOAT)
        return made

    return parse


def _duration(text: str, _base: str, by: Any) -> Any:
    try:
        seconds = dates.duration(text)
    except ValueError as error:
        raise BadValue(text, "a duration (PT1H30M or 1:30:00)") from error
    value = seconds if by is None else numbers.scaled(seconds, by)
    return int(value) if value == int(value) else float(value)
