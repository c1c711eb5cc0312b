"""A file's mutants: the same text with one place changed.

Python expressions are changed by cosmic-ray's operators. A statement is dropped by ourselves, since cosmic-ray has no such
operator, and Lua is changed by ours alone: comparisons, constants, conditions, dropped lines. Lua stands in ``.lua`` files.

Left out by rule, since it is no guard of anything:

    what is said        log lines and the conditions of nothing else, f-strings, __repr__, docstrings
    declarations        defaults of a class's fields, ``frozen=``, ``kw_only=``, ``slots=``, ``gc=``; ``strict=`` of zip asserts;
                        ``usedforsecurity=`` of a hash
    how a process ends  ``daemon=`` of a thread
    fallbacks           the number of ``found or 0``, and of ``found.get(name, 0)``
    tuning              numbers of constants, of two digits and more, of ``join(5)``, ``wait(5)`` and ``connections=2``: one
                        more tells nothing
    places              an index (``ARGV[3]``, ``pair[0]``) is a name
    no mutant           what does not compile, texts that are put together (``"a" - "b"``), and what means the same as
                        another one (``not a == b``, ``a != b``)
"""

import ast
import hashlib
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Final

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

COMPARISONS: Final = ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is")
ARITHMETIC: Final = ("Add_Sub", "Sub_Add", "Mul_FloorDiv", "Div_Mul", "FloorDiv_Mul")
OPERATORS: Final = (
    *(f"ReplaceComparisonOperator_{name}" for name in COMPARISONS),
    *(f"ReplaceBinaryOperator_{name}" for name in ARITHMETIC),
    "AddNot",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ZeroIterationForLoop",
    "NumberReplacer",
)
# Each Lua operator: what it looks for (never in a comment or a quoted text), and what may stand there instead.
LUA_OPERATORS: Final = (
    (re.compile(r" (<|>) "), {"<": (" <= ", " >= "), ">": (" >= ", " <= ")}),
    (re.compile(r" (<=|>=) "), {"<=": (" < ", " > "), ">=": (" > ", " < ")}),
    (re.compile(r" (==|~=) "), {"==": (" ~= ",), "~=": (" == ",)}),
    (re.compile(r" (and|or) "), {"and": (" or ",), "or": (" and ",)}),
    (re.compile(r"\b(not) "), {"not": ("",)}),
    (re.compile(r" (\+|-) "), {"+": (" - ",), "-": (" + ",)}),
    (re.compile(r"\b(true|false)\b"), {"true": ("false",), "false": ("true",)}),
    (re.compile(r"\b(math\.max|math\.min)\b"), {"math.max": ("math.min",), "math.min": ("math.max",)}),
)
LUA_NUMBER: Final = re.compile(r"(?<![\w.\"'$\[])(\d+)(?![\w.\"'])")
DECLARED: Final = (
    "strict",
    "frozen",
    "kw_only",
    "slots",
    "gc",
    "eq",
    "daemon",
    "connections",
    "usedforsecurity",
)  # keywords whose values guard nothing
LUA_STATEMENT: Final = re.compile(r"^\s*([\w.]+\(.*\)|[\w.\[\]\"' ,]+ = [^{]*[^{,(])$")
LUA_BEGINS: Final = re.compile(r"^\s*redis\.call\(.*[,(]$")  # a statement of several lines
LUA_ONE_LINE: Final = re.compile(r"^\s*(?:if .* then (.+) end|elseif .* then (\S.*?)(?: end)?|else (\S.*?)(?: end)?)$")
LUA_NO_STATEMENT: Final = ("local ", "--", "return", "for ", "while ", "if ", "else")
LUA_FUNCTION: Final = re.compile(r"^(\s*)local function (\w+)\(")
LUA_FLAG: Final = re.compile(r"""(["'])(NX|XX|GT|LT|KEEPTTL)\1, """)
LUA_QUOTED: Final = re.compile(r"--[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One changed place. ``line`` counts from 1 in the file; ``was`` and ``now`` are that line's text, stripped.

    ``key`` names it by the code of its place: what came of it is known until that changes.
    """

    path: str
    line: int
    operator: str
    was: str
    now: str
    text: str  # the whole file
    place: str  # the function or script it stands in
    key: str


def mutants(path: str, source: str) -> list[Mutant]:
    """All mutants of a file, in the order of their lines, each different meaning once."""
    places: list[tuple[int, int, str]] = []
    if path.endswith(".lua"):
        places = _lua_places(source)
        texts = list(_lua(source))
    else:
        tree = ast.parse(source)
        places = _places(tree)
        texts = [*_dropped(source, tree), *_expressions(source, tree)]
    found: dict[str, Mutant] = {}
    is_lua = path.endswith(".lua")
    doubles: Counter[str] = Counter()
    for operator, text in texts:
        means = text if is_lua else _meaning(text)
        if text == source or not means or means in found:
            continue
        line, was, now = _difference(source, text)
        first, last, place = next((one for one in reversed(places) if one[0] <= line <= one[1]), (line, line, ""))
        around = _code("\n".join(_lines(source)[0][first - 1 : last]), is_lua=is_lua)
        keyed = hashlib.sha256(repr((path, place, around, operator, was, now)).encode()).hexdigest()
        doubles[keyed] += 1
        found[means] = Mutant(path, line, operator, was, now, text, place, f"{keyed[:24]}.{doubles[keyed]}")
    return sorted(found.values(), key=lambda one: (one.line, one.operator, one.now))


class _Plain(ast.NodeTransformer):
    """``not a == b`` as ``a != b``, ``not not a`` as ``a``: where both are only asked for their truth they are the same."""

    OPPOSITE: Final = {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn,
                       ast.NotIn: ast.In}  # fmt: skip

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        inner = node.operand
        if not isinstance(node.op, ast.Not):
            return node
        if isinstance(inner, ast.UnaryOp) and isinstance(inner.op, ast.Not):
            return inner.operand
        if isinstance(inner, ast.Compare) and len(inner.ops) == 1 and type(inner.ops[0]) in self.OPPOSITE:
            return ast.Compare(inner.left, [self.OPPOSITE[type(inner.ops[0])]()], inner.comparators)
        return node


def _meaning(text: str) -> str:
    """The same for texts that do the same by their form; empty for what is no Python."""
    try:
        return ast.dump(_Plain().visit(ast.parse(text)))
    except SyntaxError:
        return ""


def _code(text: str, *, is_lua: bool) -> str:
    """A place's text without comments, docstrings and blanks: what was found out about it outlives better words."""
    if is_lua:
        return re.sub(r"--[^\n]*|\s+", " ", text)
    try:
        tree = ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return text
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _places(tree: ast.Module) -> list[tuple[int, int, str]]:
    """(first line, last line, name) of functions, classes and assigned texts; inner ones come later."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append((node.lineno, node.end_lineno or node.lineno, node.name))
        elif isinstance(node, ast.AnnAssign | ast.Assign) and node.col_offset == 0:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            found.append((node.lineno, node.end_lineno or node.lineno, ast.unparse(target)))
    return sorted(found)


def _is_said_only(node: ast.AST) -> bool:
    """A log line, an assertion for the type checker, or a declaration: nobody's behaviour."""
    if isinstance(node, ast.If):
        return all(map(_is_said_only, [*node.body, *node.orelse]))
    text = ast.unparse(node)
    return text.startswith(("log.", "self._log.", "assert ", "from ", "import ", "raise NotImplementedError"))


def _is_declared(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """A number or truth that declares, or tunes: see the head of this file."""
    if not isinstance(node, ast.Constant):
        return False
    above, is_number = parents[node], not isinstance(node.value, bool | str | bytes | None)
    if isinstance(above, ast.keyword) and above.arg in DECLARED:
        return True
    if is_number and isinstance(above, ast.UnaryOp):
        above = parents[above]
    if is_number and isinstance(above, ast.Subscript | ast.Slice):
        return True
    if is_number and isinstance(above, ast.BoolOp) and isinstance(above.op, ast.Or):
        return True
    within = above
    while isinstance(within, ast.BinOp):
        within = parents[within]
    if is_number and isinstance(within, ast.Call) and isinstance(within.func, ast.Attribute):
        return within.func.attr in ("join", "wait") or (above is within and within.func.attr == "get")
    while is_number and not isinstance(above, ast.stmt):
        above = parents[above]
    return is_number and isinstance(above, ast.Assign | ast.AnnAssign) and not _is_in_function(above, parents)


def _is_in_function(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.FunctionDef):
            return True
    return False


def _quiet(source: str, tree: ast.Module) -> list[tuple[int, int]]:
    """Spans whose change only changes what is said, or how something is declared; as offsets."""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    spans = []
    for node in ast.walk(tree):
        is_statement = isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef | ast.ClassDef)
        is_shown = isinstance(node, ast.FunctionDef) and node.name in ("__repr__", "__str__")
        is_text = isinstance(node, ast.JoinedStr)
        is_quiet = is_shown or is_text or (is_statement and _is_said_only(node)) or _is_declared(node, parents)
        if is_quiet:
            spans.append(_span(source, node))
        if isinstance(node, ast.BinOp) and _is_text(node):
            spans.append((_span(source, node.left)[1], _span(source, node.right)[0]))  # the operator
    return spans


def _is_text(node: ast.AST) -> bool:
    """Whether a text is one of what is put together."""
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _span(source: str, node: ast.AST) -> tuple[int, int]:
    """Where a node stands, as offsets."""
    lines, starts = _lines(source)
    first, last = node.lineno - 1, node.end_lineno - 1  # type: ignore[attr-defined]
    return (
        starts[first] + _chars(lines[first], node.col_offset),  # type: ignore[attr-defined]
        starts[last] + _chars(lines[last], node.end_col_offset),  # type: ignore[attr-defined]
    )


@cache
def _lines(source: str) -> tuple[list[str], list[int]]:
    """The lines of a text, and where each begins."""
    lines, starts = source.splitlines(keepends=True), [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    return lines, starts


def _expressions(source: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    quiet = _quiet(source, tree)
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        for number in count():
            text = mutate_code(source, operator, number)
            if text is None:
                break
            if name == "NumberReplacer" and not _is_small(source, text):
                continue
            at = _first_difference(source, text)
            if not any(first <= at < last for first, last in quiet):
                yield name, text


def _first_difference(source: str, text: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(source, text, strict=False)) if a != b), len(source))


def _is_small(source: str, text: str) -> bool:
    """Whether the number that changed has one figure: a limit of 500 that becomes 501 tells nothing."""
    _, was, now = _difference(source, text)
    before, after = re.findall(r"[\d_.]+", was), re.findall(r"[\d_.]+", now)
    return any(len(a) == 1 for a, b in zip(before, after, strict=False) if a != b)


def _dropped(source: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each call, assignment to something that outlives the function, ``raise`` and ``del`` in turn becomes ``pass``."""
    lines = source.splitlines(keepends=True)
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if not isinstance(node, ast.stmt) or _is_said_only(node):
                continue
            is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
            is_kept = (
                isinstance(node, ast.Assign)
                and any(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets)
                and function.name != "__init__"
            )
            if is_call or is_kept or isinstance(node, ast.AugAssign | ast.Raise | ast.Delete):
                first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
                head, tail = lines[first][: _chars(lines[first], node.col_offset)], lines[last]
                rest = tail[_chars(tail, node.end_col_offset or 0) :]
                yield "DropStatement", "".join([*lines[:first], f"{head}pass{rest}", *lines[last + 1 :]])


def _chars(line: str, byte_offset: int) -> int:
    return len(line.encode()[:byte_offset].decode())


def _lua_places(source: str) -> list[tuple[int, int, str]]:
    """(first line, last line, name) of the functions of a Lua file; inner ones come later."""
    found, lines = [], source.split("\n")
    for number, line in enumerate(lines, 1):
        if begins := LUA_FUNCTION.match(line):
            indent = begins.group(1)
            last = next((at for at in range(number, len(lines) + 1) if lines[at - 1] == f"{indent}end"), number)
            found.append((number, last, begins.group(2)))
    return found


def _lua(source: str) -> Iterator[tuple[str, str]]:
    quoted = [found.span() for found in LUA_QUOTED.finditer(source)]

    def is_code(at: int) -> bool:
        return not any(first <= at < last for first, last in quoted)

    def changed(first: int, last: int, text: str) -> str:
        return source[:first] + text + source[last:]

    for pattern, instead in LUA_OPERATORS:
        for found in pattern.finditer(source):
            if is_code(found.start(1)):
                for text in instead[found.group(1)]:
                    yield f"Lua {found.group(1)}", changed(found.start(), found.end(), text)
    for found in LUA_NUMBER.finditer(source):
        is_fallback = source[: found.start()].endswith(" or ")
        if is_code(found.start()) and len(found.group()) == 1 and not is_fallback:
            yield "Lua number", changed(found.start(), found.end(), str(int(found.group()) + 1))
    for found in LUA_FLAG.finditer(source):
        yield "Lua flag", changed(found.start(), found.end(), "")
    at, before = 0, ""
    for line in source.splitlines(keepends=True):
        bare = line.rstrip("\n")
        if before.endswith(("=", ",", "(")):
            pass  # the rest of a statement
        elif LUA_BEGINS.match(bare):
            yield "Lua drop", changed(at, _lua_end(source, at), "")
        elif LUA_STATEMENT.match(bare) and not bare.lstrip().startswith(LUA_NO_STATEMENT):
            yield "Lua drop", changed(at, at + len(bare), "")
        elif only := LUA_ONE_LINE.match(bare):
            place = only.lastindex or 0
            yield "Lua drop", changed(at + only.start(place), at + only.end(place), "")
        at, before = at + len(line), bare


def _lua_end(source: str, at: int) -> int:
    """Where a call ends that begins ``at`` a place."""
    bare = LUA_QUOTED.sub(lambda found: "_" * len(found.group()), source)
    depth = 0
    for place in range(at, len(bare)):
        depth += (bare[place] == "(") - (bare[place] == ")")
        if bare[place] == ")" and not depth:
            return place + 1
    return len(source)


def _difference(source: str, text: str) -> tuple[int, str, str]:
    """The first line that differs, counted from 1, and how it was and is."""
    before, after = source.split("\n"), text.split("\n")
    for number, line in enumerate(before):
        if number >= len(after) or after[number] != line:
            return number + 1, line.strip(), after[number].strip() if number < len(after) else ""
    return len(before), "", ""
