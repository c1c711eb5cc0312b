"""The JSON Schema of a record, made from the fields of a definition."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from jobs.definition.field import Choice, Field, Nested, Value

FEED_KEYS: Final[dict[str, dict[str, Any]]] = {
    "title": {"type": ["string", "null"]},
    "link": {"type": ["string", "null"]},
    "id": {"type": ["string", "null"]},
    "published": {"type": ["string", "null"]},
    "updated": {"type": ["string", "null"]},
    "author": {"type": ["string", "null"]},
    "summary": {"type": ["string", "null"]},
    "content": {"type": ["string", "null"]},
    "categories": {"type": "array", "items": {"type": "string"}},
    "enclosures": {"type": "array", "items": {"type": "string"}},
}
_TYPES: Final[dict[str, dict[str, Any]]] = {
    "str": {"type": "string"},
    "url": {"type": "string", "format": "uri"},
    "int": {"type": "integer"},
    "decimal": {"type": "string", "pattern": r"^-?\d+(\.\d+)?$"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "duration": {"type": "number"},
}


def of_record(
    title: str, fields: Mapping[str, Field], required: Sequence[str], keys: Sequence[str] | None
) -> dict[str, Any]:
    """The schema of a record. Without fields, ``keys`` are the names of the rows' keys, if they are known."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    if fields:
        return {**head, **_object(fields, required)}
    plain = {name: FEED_KEYS.get(name, {"type": ["string", "null"]}) for name in keys or ()}
    more = {} if keys else {"additionalProperties": {"type": ["string", "null"]}}
    return {**head, "type": "object", "properties": plain, **more}


def _object(fields: Mapping[str, Field], required: Sequence[str] = ()) -> dict[str, Any]:
    properties = {
        name: _field(field, nullable=name not in required) for name, field in fields.items() if name[0] != "_"
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _field(field: Field, *, nullable: bool) -> dict[str, Any]:
    if isinstance(field, Nested):
        return {"type": "array", "items": _object(field.fields)}
    if isinstance(field, Choice):
        options = [_field(option, nullable=nullable) for option in field.options]
        unique = [option for index, option in enumerate(options) if option not in options[:index]]
        return unique[0] if len(unique) == 1 else {"anyOf": unique}
    one = _single(field)
    if field.many and field.join is None:
        return {"type": "array", "items": one}
    if field.many:
        one = {"type": "string"}
    return _or_null(one) if nullable and field.default is None else one


def _single(field: Value) -> dict[str, Any]:
    selector = field.selector
    if selector is not None and selector.language == "const":
        return {"const": selector.expression}
    if not field.type and field.map:
        found = list(dict.fromkeys(map(_hashable, field.map.values())))
        return {"enum": found}
    is_json = selector is not None and (selector.language in ("jmes", "own", "jsonld") or selector.parse == "json")
    if not field.type and is_json and not field.re:
        return {}  # any JSON value
    if field.type == "datetime" and field.tz == "local":
        return {"type": "string"}
    return dict(_TYPES[field.type or "str"])


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _or_null(one: dict[str, Any]) -> dict[str, Any]:
    if "type" in one:
        return {**one, "type": [one["type"], "null"]}
    if "enum" in one:
        return {"enum": [*one["enum"], None]}
    return {"anyOf": [one, {"type": "null"}]} if one else one
