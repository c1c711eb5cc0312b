"""JMESPath, with ``items(object)`` → [[key, value], …] and ``zip(a, b, …)`` → rows.

A compiled expression keeps one interpreter, since ``search`` makes a new one for each call, which takes three times as long.
jmespath does not document the interpreter's ``visit``; a test pins it.
"""

from collections.abc import Callable
from typing import Any, Final

import jmespath
from jmespath import exceptions, functions
from jmespath.visitor import Options, TreeInterpreter

Find = Callable[[Any], Any]
# Errors of evaluating an expression; the last one by ceil(1e999).
FAILED: Final = (exceptions.JMESPathError, RecursionError, TypeError, ValueError, OverflowError)


class _Functions(functions.Functions):
    """The standard functions, and ours. ``Number``, which keeps its digits, counts as a number."""

    @functions.signature({"types": ["object", "null"]})
    def _func_items(self, value: dict[str, Any] | None) -> list[list[Any]]:
        return [[key, one] for key, one in (value or {}).items()]

    @functions.signature({"types": ["array", "null"], "variadic": True})
    def _func_zip(self, *lists: list[Any] | None) -> list[list[Any]]:
        return [list(row) for row in zip(*(one or [] for one in lists), strict=False)]

    def _get_allowed_pytypes(self, types: Any) -> Any:
        allowed, subtypes = super()._get_allowed_pytypes(types)  # type: ignore[misc]
        wider = [[*kinds, "Number"] if "float" in kinds else kinds for kinds in subtypes]
        return ([*allowed, "Number"] if "float" in allowed else allowed), wider

    def _convert_to_jmespath_type(self, name: str) -> Any:
        return "number" if name == "Number" else super()._convert_to_jmespath_type(name)  # type: ignore[misc]


def compiled(expression: str) -> Find:
    """A function that evaluates an expression on a JSON value. Raises ValueError for a bad expression.

    The function raises the errors in ``FAILED``.
    """
    try:
        parsed = jmespath.compile(expression).parsed
    except (exceptions.JMESPathError, RecursionError) as error:
        raise ValueError(str(error).splitlines()[0] if str(error) else "nested too deeply") from error
    for name in _called(parsed):
        if name not in _Functions.FUNCTION_TABLE:
            raise ValueError(f"unknown function {name}()")
    keys = _keys(parsed)
    if keys is not None:
        return _plain(keys)
    visit = TreeInterpreter(Options(custom_functions=_Functions())).visit

    def find(value: Any) -> Any:
        return visit(parsed, value)

    return find


def _called(node: Any) -> list[str]:
    own = [str(node["value"])] if node["type"] == "function_expression" else []
    return own + [name for child in node["children"] if isinstance(child, dict) for name in _called(child)]


def _keys(node: Any) -> list[str | int] | None:
    """The steps of an expression of keys and indices only (``a.b[0].c``); None for any other."""
    if node["type"] in ("field", "index"):
        return [node["value"]] if node["type"] == "field" else [int(node["value"])]
    if node["type"] not in ("subexpression", "index_expression"):
        return None
    found: list[str | int] = []
    for child in node["children"]:
        keys = _keys(child)
        if keys is None:
            return None
        found += keys
    return found


def _plain(keys: list[str | int]) -> Find:
    """Looks up plain keys without an interpreter, which is many times faster."""
    only = keys[0]
    if len(keys) == 1 and isinstance(only, str):
        return lambda value: value.get(only) if type(value) is dict else None

    def find(value: Any) -> Any:
        for key in keys:
            if isinstance(key, str):
                if type(value) is not dict:
                    return None
                value = value.get(key)
            else:
                if type(value) is not list or not -len(value) <= key < len(value):
                    return None
                value = value[key]
        return value

    return find
