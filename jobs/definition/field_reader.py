"""Reads selectors and fields of a definition.

A selector looks at the innermost level of its own kind. Its level is found here, since the kinds of all levels around it are
known by then.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from jobs.definition import css, jmes
from jobs.definition.field import (
    DEFAULT_LANGUAGE,
    ELEMENT,
    LANGUAGES,
    LOOKS_AT,
    NAME,
    OWN,
    PAGE_URL,
    PARSED,
    ROW,
    TYPES,
    VALUE,
    Choice,
    Field,
    Kinds,
    Nested,
    Selector,
    Value,
    template_parts,
)
from jobs.definition.reader import Reader, Table, Where, show
from jobs.text import dates, numbers, pattern
from regions.faults import nearest

_KEYS: Final = (
    "level", "parse", "many", "without", "lines", "fold", "re", "map", "type", "scale", "join", "default", "decimal_mark", "format",
    "lang", "tz", "to_tz",
)  # fmt: skip
_ONLY_FOR: Final = {
    "decimal_mark": ("int", "decimal", "float"),
    "scale": ("int", "decimal", "float", "duration"),
    "format": ("date", "datetime"),
    "lang": ("date", "datetime"),
    "tz": ("datetime",),
    "to_tz": ("datetime",),
}


class FieldReader:
    """Reads the selectors and fields of one definition. ``params`` are names that templates may use besides fields."""

    def __init__(self, reader: Reader, form: str, params: Sequence[str]) -> None:
        self.reader = reader
        self.form = form
        self.params = params

    def selector(self, raw: Any, where: Where, levels: Sequence[Kinds], extra: Sequence[str] = ()) -> Selector | None:
        """A required selector. None, and a fault, if it is not one."""
        if isinstance(raw, str):
            return self._checked(DEFAULT_LANGUAGE[self.form], raw, Table(self.reader, {}, where), levels)
        if not isinstance(raw, dict):
            self.reader.fault(where, f"expected a selector (a text or a table), found {_kind(raw)}")
            return None
        known = (*LANGUAGES, "level", "parse", *extra)
        table = self.reader.table(raw, where, known, "selector key")
        found = [name for name in LANGUAGES if name in table]
        if len(found) != 1:
            if not found and not set(raw) - set(known):
                self.reader.fault(where, f"expected a selector: one of {', '.join(LANGUAGES)}; found none")
            elif found:
                self.reader.fault(where, f"expected one language, found {' and '.join(found)}")
            return None
        return self._checked(found[0], table[found[0]], table, levels)

    def steps(self, raws: Any, where: Where, levels: list[Kinds], extra: Sequence[str] = ()) -> tuple[Selector, ...]:
        """One step, or a list of steps, each inside the items of the one before. Appends their kinds to ``levels``."""
        listed = raws if isinstance(raws, list) else [raws]
        if not listed:
            self.reader.fault(where, "expected at least one selector, found none")
        steps = []
        for index, raw in enumerate(listed):
            at = (*where, index) if isinstance(raws, list) else where
            step = self.selector(raw, at, levels, extra)
            kinds = self.kinds_of(step, at) if step is not None else frozenset({ELEMENT, VALUE, ROW})
            levels.append(kinds)
            if step is not None:
                steps.append(step)
        return tuple(steps)

    def kinds_of(self, step: Selector, where: Where) -> Kinds:
        """The kinds of a step's items."""
        if step.parse:
            return frozenset({PARSED[step.parse]})
        if step.language in ("jmes", "jsonld"):
            return frozenset({VALUE})
        if step.language == "css" and re.search(r"::(text|attr\([^)]*\))\s*$", str(step.expression)):
            self.reader.fault(where, "expected elements, found texts; parse says as what to read them")
        if step.language in ("key", "const"):
            self.reader.fault(where, f"expected css, xpath, jmes or jsonld, or parse, found {step.language}")
        return frozenset({ELEMENT})

    def fields(self, raw: Any, where: Where, levels: Sequence[Kinds], outer: Sequence[str] = ()) -> dict[str, Field]:
        """A table of fields, in the order of the file."""
        fields: dict[str, Field] = {}
        if not isinstance(raw, dict):
            self.reader.fault(where, f"expected a table, found {_kind(raw)}")
            return fields
        above = list(outer)
        for name, one in raw.items():
            if not NAME.fullmatch(name):
                message = f'expected a name of up to 64 characters without braces, found "{name}"'
                self.reader.fault((*where, name), message)
            field = self.field(name, one, (*where, name), levels, above)
            above.append(name)
            if field is not None:
                fields[name] = field
        return fields

    def field(self, name: str, raw: Any, where: Where, levels: Sequence[Kinds], above: Sequence[str]) -> Field | None:
        """A field. None, and faults, if it is not one."""
        if isinstance(raw, list):
            if not raw:
                self.reader.fault(where, "expected at least one field in the list, found none")
            found = [self.field(name, one, (*where, i), levels, above) for i, one in enumerate(raw)]
            return Choice(tuple(one for one in found if one is not None))
        if isinstance(raw, dict) and "each" in raw:
            return self._nested(raw, where, levels, above)
        if isinstance(raw, str):
            selector = self.selector(raw, where, levels)
            return Value(selector=selector) if selector is not None else None
        return self._value(name, raw, where, levels, above)

    def _nested(self, raw: dict[str, Any], where: Where, levels: Sequence[Kinds], above: Sequence[str]) -> Field | None:
        table = self.reader.table(raw, where, ("each", "fields"))
        if "fields" not in table:
            self.reader.fault(where, "expected fields beside each, found none")
        inner = list(levels)
        steps = self.steps(table["each"], (*where, "each"), inner)
        if len(inner) != len(levels) + 1 and steps:
            self.reader.fault((*where, "each"), f"expected one selector, found {len(inner) - len(levels)}")
        fields = self.fields(table.get("fields", {}), (*where, "fields"), inner[: len(levels) + 1], above)
        return Nested(steps[0], fields) if steps else None

    def _value(self, name: str, raw: Any, where: Where, levels: Sequence[Kinds], above: Sequence[str]) -> Field | None:
        reader = self.reader
        table = reader.table(raw, where, (*LANGUAGES, *_KEYS, "template", "each", "fields"), "selector key")
        template = table.text("template")
        languages = [key for key in LANGUAGES if key in table]
        selector = None
        if template:
            if languages or "level" in table or "parse" in table:
                reader.fault(where, f"expected template or a selector, found both ({', '.join(languages) or 'level'})")
            self._check_template(template, (*where, "template"), above)
        elif languages:
            own = {key: value for key, value in table.items() if key in (*LANGUAGES, "level", "parse")}
            selector = self.selector(own, where, levels)
        elif set(raw if isinstance(raw, dict) else {}) <= {*_KEYS}:
            selector = self._checked(OWN, name, table, levels)
        value = self._keys(table, selector, template)
        return value if template or selector is not None else None

    def _keys(self, table: Table, selector: Selector | None, template: str) -> Value:
        kind = table.one_of("type", TYPES)
        for key, kinds in _ONLY_FOR.items():
            if key in table and kind not in kinds:
                table.fault(key, f"expected a type of {', '.join(kinds)} beside it, found {kind or 'none'}")
        mapping = table.of_type("map", dict[str, Any], {}, "a table of texts")
        expression = table.text("re")
        if expression:
            self.attempt(table.at("re"), pattern.compiled, expression, "an RE2 pattern")
        if expression and mapping and kind == "bool":
            table.fault("map", "expected no map: with re, a bool says whether it matched")
        many = table.flag("many")
        if expression and many and kind == "bool":
            table.fault("many", "expected no many: with re, a bool says whether it matched")
        join = table.of_type("join", str, None, "a text")
        if join is not None and not many:
            table.fault("join", "expected many = true beside it")
        without = table.text("without")
        if without and (selector is None or selector.language not in ("css", "xpath") or selector.parse):
            table.fault("without", "expected css or xpath beside it, and no parse")
        if without:
            self.attempt(table.at("without"), css.check_elements, without, "a CSS selector of elements")
        lines = table.flag("lines")
        if lines and (selector is None or (selector.language not in ("css", "xpath") and selector.parse != "html")):
            table.fault("lines", 'expected css, xpath or parse = "html" beside it')
        fold = table.flag("fold", default=True)
        if lines and not fold:
            table.fault("fold", "expected true beside lines, which folds each line")
        formats = table.texts("format")
        lang, tz = table.text("lang"), table.text("tz")
        to_tz = table.text("to_tz")
        scale = table.text("scale")
        for key, make, text, expected in (
            ("scale", numbers.factor, scale, 'a factor like "1/60" or "0.001"'),
            ("lang", dates.language, lang, "a language like de or pt_BR"),
            ("tz", dates.zone, tz, "an IANA time zone like Europe/Berlin, or local"),
            ("to_tz", dates.zone, to_tz, "an IANA time zone like Europe/Berlin, or UTC"),
        ):
            if text:
                self.attempt(table.at(key), make, text, expected)
        if to_tz and dates.LOCAL in (tz, to_tz):
            table.fault("to_tz", "expected a zone other than local: a time without an offset can't change its zone")
        for form in formats:
            if form not in dates.WORDS and "%" not in form:
                table.fault("format", f'expected {", ".join(dates.WORDS)} or a strptime pattern, found "{form}"')
            elif form not in dates.WORDS and not dates.has_year(form):
                table.fault("format", f'expected a pattern with a year (%Y or %y), found "{form}"')
            elif form not in dates.WORDS:
                self.attempt(table.at("format"), dates.check_format, form, "a strptime pattern")
        if not formats and self.form == "feed":
            formats = dates.FEED_FORMATS
        return Value(
            selector=selector,
            template=template,
            many=many,
            without=without,
            lines=lines,
            fold=fold,
            re=expression,
            map=mapping,
            type=kind,
            scale=scale,
            join=join,
            default=self._default(table, kind),
            decimal_mark=table.one_of("decimal_mark", (".", ","), "."),
            format=formats,
            lang=lang,
            tz=tz,
            to_tz=to_tz,
        )

    def _default(self, table: Table, kind: str) -> Any:
        value = table.get("default")
        if kind == "decimal" and isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if not _is_json(value):
            table.fault("default", f"expected a text, a number, true, false or a list, found {value}")
        return value

    def _check_template(self, template: str, where: Where, above: Sequence[str]) -> None:
        parts = template_parts(template)
        if parts is None:
            self.reader.fault(where, f'expected names in braces, found "{template}"')
            return
        known = [*above, *self.params, PAGE_URL]
        for part in parts:
            if not isinstance(part, str) and part[0] not in known:
                message = f'expected a field above it or a param, found "{part[0]}"{nearest(part[0], known)}'
                self.reader.fault(where, message)

    def _checked(self, language: str, expression: Any, table: Table, levels: Sequence[Kinds]) -> Selector | None:
        parse = table.one_of("parse", PARSED)
        level = self._level(language, table, levels)
        if language == "const":
            if not _is_json(expression):
                table.fault("const", f"expected a text, a number, true, false or a list, found {expression}")
            return Selector(language, expression, -1, parse)
        at = table.where if not table or language == OWN else table.at(language)
        if not isinstance(expression, str) or not expression.strip():
            self.reader.fault(at, f"expected a text in {language}, found {_kind(expression)}")
            return None
        if language == "jmes":
            self.attempt(at, jmes.compiled, expression, "JMESPath")
        if language == "css":
            self.attempt(at, _check_css, expression, "a CSS selector")
        return Selector(language, expression, level, parse) if level is not None else None

    def _level(self, language: str, table: Table, levels: Sequence[Kinds]) -> int | None:
        if language == "const":
            return -1
        wanted = {ROW, VALUE} if language == OWN else {LOOKS_AT[language]}
        if "level" in table:
            level = table.whole("level", 0, high=2**31)
            if level >= len(levels):
                table.fault("level", f"expected a level from 0 to {len(levels) - 1}, found {level}")
            elif not levels[level] & wanted:
                message = f"expected a level with {_named(wanted)}, found level {level} with {_named(levels[level])}"
                table.fault("level", message)
            else:
                return level
            return None
        for level in range(len(levels) - 1, -1, -1):
            if levels[level] & wanted:
                return level
        if language == OWN:
            self.reader.fault(
                table.where, f"expected a selector ({', '.join(LANGUAGES)}): there are no keys to take it from"
            )
        else:
            self.reader.fault(
                table.where, f"expected a language for {self.form}, found {language}, which needs {_named(wanted)}"
            )
        return None

    def attempt(self, where: Where, make: Any, text: str, expected: str) -> None:
        """Calls ``make`` with a text. An error of it becomes a fault."""
        try:
            make(text)
        except ValueError as error:
            self.reader.fault(where, f'expected {expected}, found "{text}": {error}')


def _check_css(expression: str) -> None:
    css.translate(expression, xml=False, prefix=css.INSIDE)


def _is_json(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(map(_is_json, value.values()))
    return value is None or isinstance(value, str | bool | int | float)


def _named(kinds: Sequence[str] | Kinds | set[str]) -> str:
    words = {ELEMENT: "elements", VALUE: "JSON values", ROW: "keys"}
    return " or ".join(words[kind] for kind in sorted(kinds)) or "nothing to select in"


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return show(value)
