"""Lua scripts in files: what stands in their heads, and the texts that Redis gets.

A script is a ``.lua`` file that begins with a head, a comment:

    -- What it does, and what it returns.
    -- keys: ledger, due                  Redis keys
    -- args: request, tasks (task)        arguments; the last one may be a list, ``ids...``, or a list of rows, as here
    -- rows: task (id, region)            rows: lists whose places have names
    -- uses: now, hosts                   other files, which stand before it, each once; of the folder, or of regions/lua
    -- needs: queue                       of a file that others use: keys and arguments that a script with it must have
    -- constants: KEEP_MS, WAKE           constants of Python
    -- flags: allow-oom                   of the script, as Redis names them

A line that is too long goes on in the next one, after ``--`` and two more spaces. Keys and arguments are local variables of
the script. Python passes them by these names, and rows as structs, whose fields are compared with the head when the script
is read. These names are replaced in the text, so they cost nothing at run time:

    KEEP_MS         the constant's value
    task.region     the place of the row's field: ``task[2]``, whatever list the variable ``task`` holds
    task_row()      a list of the variables that have the names of the row's fields: ``{id, region}``
    task_size()     the number of the row's fields
    ..task          in the fields of another row: all fields of this one
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_SHARED: Final = Path(__file__).with_name("lua")  # what files of any folder may use
_HEAD: Final = re.compile(r"-- (keys|args|rows|uses|needs|constants|flags): (.*)")
_MORE: Final = re.compile(r"--   (.*)")
_NAMES: Final = re.compile(r"\s*([\w-]+(?:\.\.\.)?)(?: \(([^)]*)\))?\s*(?:,|$)")
# Comments and texts, which stay as they are; names with a field; what is made of rows; constants.
_TOKENS: Final = re.compile(
    r"""--[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"""
    r"""|(?<![\w.])(?P<row>\w+)\.(?P<field>\w+)\b|\b(?P<made>\w+)_(?P<what>row|size)\(\)|\b(?P<constant>[A-Z][A-Z0-9_]+)\b"""
)
_OF_REDIS: Final = frozenset({"KEYS", "ARGV"})

Rows = dict[str, tuple[str, ...]]  # the fields of each row


@dataclass(frozen=True, slots=True)
class Lua:
    """A script's text as Redis gets it, and what it takes.

    ``many`` is the argument that is a list, ``has_rows`` whether of rows. ``files``: what the script is made of.
    """

    text: str
    keys: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    many: str = ""
    has_rows: bool = False
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class _File:
    """A Lua file: the lists of its head, its rows and those of what it uses, and what follows the head."""

    path: Path
    heads: dict[str, list[str]]
    rows: Rows
    known: Rows
    listed: str  # the row of the last argument
    body: str

    def names(self, head: str) -> list[str]:
        return self.heads.get(head, [])


def _head_of(path: Path, lines: Sequence[str]) -> dict[str, str]:
    """What stands after each name in a head."""
    lists: dict[str, str] = {}
    last = ""
    for line in lines:
        if found := _HEAD.match(line):
            last = found[1]
            lists[last] = found[2]
        elif last and (found := _MORE.match(line)):
            lists[last] += f" {found[1]}"
        elif last:
            raise ValueError(f"{path}: expected what it does before the other lines of its head, found {line.strip()}")
    if not lines or _HEAD.match(lines[0]):
        raise ValueError(f"{path}: expected a comment that says what it does")
    return lists


def _parse(path: Path, text: str, used: Mapping[str, _File]) -> _File:
    """A file that uses others, which were parsed before."""
    lines = text.splitlines(keepends=True)
    length = next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))
    heads: dict[str, list[str]] = {}
    inside: dict[str, str] = {}
    for head, items in _head_of(path, lines[:length]).items():
        names = list(_NAMES.finditer(items))
        if "".join(one[0] for one in names) != items:
            raise ValueError(f"{path}: expected names after {head}, found {items}")
        heads[head] = [one[1] for one in names]
        inside |= {one[1]: one[2] for one in names if one[2] is not None}
    known = {name: fields for file in used.values() for name, fields in file.rows.items()}
    rows: Rows = {}
    for name in heads.get("rows", []):
        fields = re.findall(r"[\w.]+", inside[name])
        rows[name] = tuple(
            one for field in fields for one in (known[field[2:]] if field.startswith("..") else (field,))
        )
    listed = inside.get(heads["args"][-1], "") if heads.get("args") else ""
    if listed and listed not in rows:
        raise ValueError(f"{path}: expected a row of its head in the list of its arguments, found {listed}")
    return _File(path, heads, rows, known | rows, listed, "".join(lines[length:]))


class Folder:
    """A folder of Lua files, and the constants that they may name. Read at import: the same files give the same texts."""

    def __init__(self, path: Path, constants: Mapping[str, str | int] | None = None, *, first: str = "") -> None:
        """``first``: the file that stands before the keys and arguments of each script."""
        self._path, self._constants, self._first = path, constants or {}, [first] if first else []
        self._parts: dict[str, _File] = {}  # that were parsed
        self._bodies: dict[Path, str] = {}  # of those

    def read(self, name: str, *, flags: str = "", **rows: type[Any]) -> Lua:
        """A script of the folder. ``flags`` replace those of its head; ``rows``: the struct of each row in its head.

        Raises ValueError if a head is wrong, or does not agree with its script, with Python's constants or with ``rows``.
        """
        path = self._path / f"{name}.lua"
        return self.compose(path.read_text(encoding="utf-8"), path=path, flags=flags, **rows)

    def compose(self, text: str, *, path: Path = Path(), flags: str = "", **rows: type[Any]) -> Lua:
        """The same, of a text that begins with a head."""
        first = self._with_used(self._first, {})
        parts = self._with_used(_uses(text), first)
        script = _parse(path, text, parts)
        keys, args = script.names("keys"), script.names("args")
        many = args.pop() if args and (args[-1].endswith("...") or script.listed) else ""
        taken = {*keys, *args, many}
        for part in parts.values():
            if missing := set(part.names("needs")) - taken:
                raise ValueError(
                    f"{path}: expected {missing} among its keys and arguments: {part.path.name} needs them"
                )
        if script.rows != {name: getattr(of, "__struct_fields__", ()) for name, of in rows.items()}:
            raise ValueError(f"{path}: expected structs with the fields of {script.rows}, found {rows}")
        flags = flags or " ".join(script.names("flags"))
        pieces = [
            f"#!lua flags={flags}\n" if flags else "#!lua\n",
            *(self._bodies[part.path] for part in first.values()),
            _locals("KEYS", keys),
            _locals("ARGV", args),
            _many(many.removesuffix("..."), len(script.rows.get(script.listed, ())), len(args)),
            *(self._bodies[part.path] for name, part in parts.items() if name not in first),
            self._body(script),
        ]
        files = (*(part.path for part in parts.values()), *([path] if path.name else []))
        return Lua("".join(pieces), tuple(keys), tuple(args), many.removesuffix("..."), bool(script.listed), files)

    def _with_used(self, names: Sequence[str], before: Mapping[str, _File]) -> dict[str, _File]:
        """Files and those that they use, each after what it uses."""
        found = dict(before)
        for name in names:
            if name not in found:
                part = self._parts.get(name) or self._part(name)
                found |= self._with_used(part.names("uses"), found)
                found[name] = part
        return found

    def _part(self, name: str) -> _File:
        own = self._path / f"{name}.lua"
        path = own if own.exists() else _SHARED / own.name
        text = path.read_text(encoding="utf-8")
        part = self._parts[name] = _parse(path, text, self._with_used(_uses(text), {}))
        self._bodies[path] = self._body(part)
        return part

    def _body(self, file: _File) -> str:
        """What follows the head, with values of constants and places of fields instead of their names."""
        named, used = set(file.names("constants")), set()

        def put(found: re.Match[str]) -> str:
            if (constant := found["constant"]) and constant not in _OF_REDIS:
                used.add(constant)
                return _literal(self._constants[constant]) if constant in named & self._constants.keys() else constant
            if found["made"] in file.known:
                fields = file.known[found["made"]]
                return f"{{{', '.join(fields)}}}" if found["what"] == "row" else str(len(fields))
            if found["row"] in file.known:
                fields = file.known[found["row"]]
                if found["field"] not in fields:
                    raise ValueError(f"{file.path}: expected one of {', '.join(fields)}, found {found[0]}")
                return f"{found['row']}[{fields.index(found['field']) + 1}]"
            return found[0]

        body = _TOKENS.sub(put, file.body)
        if wrong := (used - named) | (named - self._constants.keys()):
            raise ValueError(
                f"{file.path}: expected constants of Python that its head names, found {', '.join(sorted(wrong))}"
            )
        return body


def _uses(text: str) -> list[str]:
    """The files that a file uses."""
    found = re.search(r"^-- uses: (.*(?:\n--   .*)*)", text, re.MULTILINE)
    return re.findall(r"\w+", found[1]) if found else []


def _literal(value: str | int) -> str:
    return str(value) if isinstance(value, int) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _locals(of: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    return f"local {', '.join(names)} = {f'unpack({of}, 1, {len(names)})' if len(names) > 1 else f'{of}[1]'}\n"


def _many(name: str, fields: int, before: int) -> str:
    """Reads the arguments after the first ones into a list, or into a list of rows with that many fields."""
    if not name:
        return ""
    step = f", {fields}" if fields else ""
    item = f"{{unpack(ARGV, at, at + {fields - 1})}}" if fields else "ARGV[at]"
    return f"local {name} = {{}}\nfor at = {before + 1}, #ARGV{step} do {name}[#{name} + 1] = {item} end\n"
