"""Compiles fields into functions that make a record from the levels of a row.

Plan.make(levels, scope) → the record; None if the fields of the row's own level found nothing
  for each field: find → converter → default     a BadValue becomes null and a warning
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from lxml import etree

from jobs.definition.field import Choice, Field, Nested, Selector, Value, template_parts
from jobs.errors import ParseFailed
from jobs.parse import markup
from jobs.parse.convert import Convert, Doubt, as_it_is, converter, finisher, folder
from jobs.parse.descendants import Cache, Seek
from jobs.parse.select import Compiler, Find, Levels, Reading, Shape
from jobs.parse.warnings import Warnings
from jobs.text import pattern, values
from jobs.text.values import LONG, BadValue, folded

BAD_MAX: Final = 10  # bad values in required fields that are reported


@dataclass
class Scope:
    """What the fields of one page share. ``row`` counts from 1; ``given``: the current row found something."""

    base: str
    warnings: Warnings
    params: Mapping[str, Any]
    required: frozenset[str] = frozenset()
    row: int = 0
    given: bool = False
    is_based: bool = False  # the page has xml:base on some element
    bad_required: list[str] = field(default_factory=list)
    # Values of outer levels, which many rows share, and the elements of the current row.
    cache: Cache = field(default_factory=dict)

    def bad(self, name: str, error: BadValue) -> None:
        """Notes a value that does not fit its field."""
        text = f"row {self.row}: {name}: {error}"
        self.warnings.add((name, f"{error.expected} {error.hint}"), text)
        if name in self.required and len(self.bad_required) < BAD_MAX:
            self.bad_required.append(text)

    def doubt(self, name: str, text: str, note: str) -> None:
        """Notes a value that was read but may be another one."""
        shown = text if len(text) <= values.SHOWN_MAX else text[: values.SHOWN_MAX - 1] + "…"
        self.warnings.add((name, note), f'row {self.row}: {name}: in "{shown}" {note}')


Names = dict[str, Any]
Get = Callable[[Levels, Scope, Names], Any]


class _Slot(NamedTuple):
    """A field of a plan. ``own``: it selects in the row's own level. ``nothing`` is its value if it finds nothing."""

    name: str
    get: Get
    own: bool
    nothing: Any
    hidden: bool


class Plan:
    """The fields of a record at a depth, compiled for one thread."""

    def __init__(
        self,
        compiler: Compiler,
        fields: Mapping[str, Field],
        shape: Shape,
        inside: str = "",
    ) -> None:
        self._compiler = compiler
        self._inside = inside  # prefix of nested fields in warnings: the outer field's name and a dot
        self._shape = shape
        self._depth = len(shape.kinds) - 1
        self._doubts: list[tuple[str, str, str]] = []  # of the current row: name, text, why it may be another value
        self._slots = [self._slot(name, one) for name, one in fields.items()]
        self._named = any(_has_template(one) for one in fields.values())
        self._asks_own = any(slot.own for slot in self._slots) or any(isinstance(f, Choice) for f in fields.values())

    def make(self, levels: Levels, scope: Scope, outer: Names) -> dict[str, Any] | None:
        """The record of a row; None if all fields of its own level found nothing."""
        record: dict[str, Any] = {}
        names = dict(outer) if self._named else outer
        scope.given = given = False
        doubts = self._doubts
        if doubts:
            doubts.clear()  # left by a row that failed
        for name, get, own, nothing, hidden in self._slots:
            try:
                value = get(levels, scope, names)
            except BadValue as error:
                scope.bad(self._inside + name, error)
                given = given or own
                value = None
            except etree.XPathError as error:
                raise ParseFailed(f"{self._inside}{name} failed on the page: {error}") from error
            else:
                if value is None:
                    value = nothing
                elif own:
                    given = True
            if self._named:
                names[name] = value
            if not hidden:
                record[name] = value
        if doubts:
            for one in doubts:
                scope.doubt(*one)
        return record if given or scope.given or not self._asks_own else None

    def _slot(self, name: str, one: Field) -> _Slot:
        hidden = name.startswith("_")
        if isinstance(one, Value):
            get = self._value(name, one)
            if one.selector is not None and 0 <= one.selector.level < self._depth:
                get = _cached(get, one.selector.level)
            nothing = one.default if one.default is not None else [] if one.many and one.join is None else None
            return _Slot(name, get, self._is_own(one.selector), nothing, hidden)
        if isinstance(one, Nested):
            return _Slot(name, self._nested(name, one), self._is_own(one.each), [], hidden)
        return _Slot(name, *self._choice(name, one), hidden)

    def _is_own(self, selector: Selector | None) -> bool:
        return selector is not None and selector.level == self._depth

    def _choice(self, name: str, choice: Choice) -> tuple[Get, bool, Any]:
        """The first option that finds something, be it a bad value. Of several defaults the last one counts."""
        slots = [self._slot(name, option) for option in choice.options]

        def get(levels: Levels, scope: Scope, names: Names) -> Any:
            for slot in slots:
                try:
                    value = slot.get(levels, scope, names)
                except BadValue:
                    scope.given = scope.given or slot.own
                    raise
                if value is not None:
                    scope.given = scope.given or slot.own
                    return value
            return None

        nothing = next((slot.nothing for slot in reversed(slots) if slot.nothing not in (None, [])), slots[-1].nothing)
        return get, False, nothing

    def _nested(self, name: str, nested: Nested) -> Get:
        step = self._compiler.step(nested.each, self._shape)
        plan = Plan(self._compiler, nested.fields, self._shape.inside(nested.each), f"{self._inside}{name}.")

        def get(levels: Levels, scope: Scope, names: Names) -> Any:
            given = scope.given
            made = [plan.make([*levels, item], scope, names) for item in step(levels)]
            scope.given = given
            return [record for record in made if record is not None] or None

        return get

    def _value(self, name: str, spec: Value) -> Get:

        def doubt(text: str, note: str) -> None:
            self._doubts.append((self._inside + name, text, note))

        convert = converter(spec, doubt)
        if spec.template:
            return _template(spec, convert)
        assert spec.selector is not None
        if spec.selector.language == "const" and not spec.many:
            constant = spec.selector.expression
            return lambda _levels, scope, _names: convert(constant, scope.base)
        get = self._list(name, spec, convert, doubt) if spec.many else self._single(name, spec, convert)
        if spec.type == "url" and self._compiler.is_xml:
            return self._located(name, spec, convert, get, doubt)
        return get

    def _single(self, name: str, spec: Value, convert: Convert) -> Get:
        """Adds the conversion to each of the three ways to a first match."""
        assert spec.selector is not None
        find, whole, seek, level = self._compiler.first(spec.selector, self._shape, _reading(name, spec))
        if seek is not None:
            if convert is as_it_is:
                return _sought_folded(seek)
            return lambda levels, scope, _names: convert(seek(levels, scope.cache), scope.base)
        if whole is not None:
            if convert is as_it_is:
                return _whole_folded(whole, level)
            return lambda levels, scope, _names: convert(whole(levels[level]), scope.base)
        assert find is not None
        if convert is as_it_is:
            return _plain(find)
        return lambda levels, scope, _names: convert(find(levels), scope.base)

    def _list(self, name: str, spec: Value, convert: Convert, doubt: Doubt) -> Get:
        assert spec.selector is not None
        find = self._compiler.all(spec.selector, self._shape, _reading(name, spec))
        if convert is as_it_is and spec.join is None:
            return lambda levels, _scope, _names: (
                [one for raw in find(levels) if (one := _folded(raw)) is not None] or None
            )
        collect = self._collector(name, spec, convert, doubt)
        return lambda levels, scope, _names: collect([(one, scope.base) for one in find(levels)], scope)

    def _collector(
        self, name: str, spec: Value, convert: Convert, doubt: Doubt
    ) -> Callable[[list[tuple[Any, str]], Scope], Any]:
        """([(value found, the base of its addresses)], scope) → the list of values, or its joined text."""
        texts, finish, finish_json = None, None, None
        if spec.re:
            texts, finish, finish_json = (
                _matches(spec),
                finisher(spec, doubt),
                finisher(spec, doubt, is_json=True),
            )

        def collect(pairs: list[tuple[Any, str]], scope: Scope) -> Any:
            found: list[Any] = []
            for one, base in pairs:
                try:
                    if texts is None:
                        value = convert(one, base)
                        if value is not None:
                            found.append(value)
                        continue
                    parts = texts(one)
                except BadValue as error:
                    scope.bad(self._inside + name, error)
                    continue
                self._finish(name, parts, finish if type(one) is str else finish_json, found, scope, base)
            if not found:
                return None
            return found if spec.join is None else values.joined(found, spec.join)

        return collect

    def _finish(
        self, name: str, texts: list[str], finish: Convert | None, found: list[Any], scope: Scope, base: str
    ) -> None:
        """Applies the steps after ``re`` to each match."""
        for text in texts:
            try:
                found.append(text if finish is None else finish(text, base))
            except BadValue as error:
                scope.bad(self._inside + name, error)

    def _located(self, name: str, spec: Value, convert: Convert, plain: Get, doubt: Doubt) -> Get:
        """An address in XML. If the page has ``xml:base``, it is relative to that of its own element."""
        assert spec.selector is not None
        find = self._compiler.located(spec.selector, self._shape, _reading(name, spec))
        collect = self._collector(name, spec, convert, doubt) if spec.many else None

        def get(levels: Levels, scope: Scope, names: Names) -> Any:
            if not scope.is_based:
                return plain(levels, scope, names)
            found = [(text, markup.base(element, scope.base)) for text, element in find(levels)]
            if collect is not None:
                return collect(found, scope)
            return convert(*found[0]) if found else None

        return get


def _reading(name: str, spec: Value) -> Reading:
    return Reading(name, spec.lines, spec.without)


def _cached(get: Get, level: int) -> Get:
    """A field of an outer level, computed once for all rows below the same item."""
    key = object()

    def cached(levels: Levels, scope: Scope, names: Names) -> Any:
        item = levels[level]
        known = scope.cache.get(key)
        if known is not None and known[0] is item:
            return known[1]
        value = get(levels, scope, names)
        scope.cache[key] = (item, value)
        return value

    return cached


def _folded(found: Any) -> Any:
    if type(found) is not str:
        return values.clean(found)
    return (" ".join(found.split()) if len(found) <= LONG else folded(found)) or None


def _plain(find: Find) -> Get:
    """A value without a type. Inlines ``as_it_is``, which saves a call per value."""

    def get(levels: Levels, _scope: Scope, _names: Names) -> Any:
        found = find(levels)
        if type(found) is not str:
            return values.clean(found)
        return (" ".join(found.split()) if len(found) <= LONG else folded(found)) or None

    return get


def _whole_folded(whole: Callable[[Any], str], level: int) -> Get:
    """An element's whole text without a type. Inlines ``as_it_is``, too."""

    def get(levels: Levels, _scope: Scope, _names: Names) -> Any:
        found = whole(levels[level])
        return (" ".join(found.split()) if len(found) <= LONG else folded(found)) or None

    return get


def _sought_folded(seek: Seek) -> Get:
    """The same for a text that the row's shared pass finds."""

    def get(levels: Levels, scope: Scope, _names: Names) -> Any:
        found = seek(levels, scope.cache)
        return (" ".join(found.split()) if len(found) <= LONG else folded(found)) or None

    return get


def _matches(spec: Value) -> Callable[[Any], list[str]]:
    """A function that finds all matches of a field's pattern in one text (its group 1, if it has one)."""
    compiled = pattern.compiled(spec.re)
    group = 1 if compiled.groups else 0
    fold = folder(spec)

    def matches(found: Any) -> list[str]:
        return [match[group] for match in compiled.finditer(fold(found)) if match[group]]

    return matches


def _template(spec: Value, convert: Convert) -> Get:
    parts = template_parts(spec.template) or []

    def get(_levels: Levels, scope: Scope, names: Names) -> Any:
        texts = []
        for part in parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            value = names.get(part[0])
            if value is None or value == []:
                return None
            texts.append(values.shown(value))
            if spec.decimal_mark != "." and "." in texts[-1] and not isinstance(value, str):
                raise BadValue(
                    texts[-1], "a text", f"{part[0]} is a number already, with a point; leave decimal_mark out"
                )
        return convert("".join(texts), scope.base)

    return get


def _has_template(one: Field) -> bool:
    if isinstance(one, Value):
        return bool(one.template)
    if isinstance(one, Nested):
        return any(map(_has_template, one.fields.values()))
    return any(map(_has_template, one.options))
