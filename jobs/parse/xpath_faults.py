"""Finds the bad XPaths of a definition, which only lxml can check.

It also checks the namespace prefixes of css, which becomes XPath.
"""

from collections.abc import Iterator, Mapping

from jobs.definition.field import Choice, Field, Nested, Selector
from jobs.definition.model import Definition
from jobs.definition.reader import Reader, Where
from jobs.parse.select import Compiler
from regions.faults import Fault


def faults(definition: Definition, compiler: Compiler) -> list[Fault]:
    """All faults, in the order of the file's tables."""
    reader = Reader(definition.path.name, definition.path.read_text(encoding="utf-8"))
    for where, selector in _selectors(definition):
        is_css = selector.language == "css"
        # Other css was checked when the file was read.
        if selector.language == "xpath" or (is_css and "|" in selector.expression):
            try:
                compiler.path(selector, frozenset())
            except ValueError as error:
                reader.fault(where, str(error))
    return reader.faults


def _selectors(definition: Definition) -> Iterator[tuple[Where, Selector]]:
    for index, step in enumerate(definition.rows):
        yield ("rows", "each", index) if len(definition.rows) > 1 else ("rows", "xpath"), step
    yield from _of_fields(definition.fields, ("fields",))
    if definition.next is not None and definition.next.selector is not None:
        yield ("next", "xpath"), definition.next.selector
    if isinstance(definition.empty, Selector):
        yield ("contract", "empty"), definition.empty
    if definition.blocked is not None:
        yield ("contract", "blocked"), definition.blocked
    if definition.before is not None:
        yield from _of_fields(definition.before.fields, ("before", "fields"))


def _of_fields(fields: Mapping[str, Field], where: Where) -> Iterator[tuple[Where, Selector]]:
    for name, field in fields.items():
        yield from _of_field(field, (*where, name))


def _of_field(field: Field, where: Where) -> Iterator[tuple[Where, Selector]]:
    if isinstance(field, Choice):
        for index, option in enumerate(field.options):
            yield from _of_field(option, (*where, index))
    elif isinstance(field, Nested):
        yield (*where, "each"), field.each
        yield from _of_fields(field.fields, (*where, "fields"))
    elif field.selector is not None:
        yield where, field.selector
