"""Lua scripts: how they are read from files, called by their hashes, and sent with other commands in one write.

A script is a ``.lua`` file that begins with a head, a comment:

    -- What it does, and what it returns.
    -- keys: ledger, due                      Redis keys
    -- args: request, tasks (id, region)      arguments; the last one may be a list, ``ids...``, or a list of rows
    -- rows: job (task, attempt)              makes functions: ``job_row`` turns a table into a list in this order, ``job_of`` the list
                                              into a table; ``..job`` stands for these fields in other rows
    -- uses: now, hosts                       other files, which stand before it, each once; of the folder, or of regions/lua
    -- needs: queue                           of a file that others use: keys and arguments that a script with it must have
    -- constants: KEEP_MS, WAKE               constants of Python; their values replace their names
    -- flags: allow-oom                       of the script, as Redis names them

The names of keys and arguments are local variables of the script, and the fields of a row are fields of a table. A line
that is too long goes on in the next one, after ``--`` and two more spaces. Python passes keys and arguments by these names,
and rows as structs whose fields are compared with the head when the script is read.

In a pipeline, redis-py's own scripts cost one more round trip, since it asks SCRIPT EXISTS first.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Self

import hiredis
import redis
from msgspec.structs import astuple

from regions.link import Link

Argument = str | bytes | int | float

_SHARED: Final = Path(__file__).with_name("lua")  # what files of any folder may use
_HEAD: Final = re.compile(r"-- (keys|args|rows|uses|needs|constants|flags): (.*)")
_MORE: Final = re.compile(r"--   (.*)")
_NAMES: Final = re.compile(r"\s*([\w-]+(?:\.\.\.)?)(?: \(([^)]*)\))?\s*(?:,|$)")
# Comments and texts, which stay as they are, and names of constants.
_TOKENS: Final = re.compile(r"""--[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\b[A-Z][A-Z0-9_]+\b""")
_OF_REDIS: Final = frozenset({"KEYS", "ARGV"})


@dataclass(frozen=True, slots=True)
class Lua:
    """A script's text as Redis gets it, and what it takes. ``many``: the argument that is a list, ``fields`` those of its rows.

    ``files``: what it is made of, as paths.
    """

    text: str
    keys: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    many: str = ""
    fields: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


class Script:
    """A Lua script. One that is given as text alone, with its shebang line, has only its hash."""

    def __init__(self, lua: Lua | str, keys: Mapping[str, str] | None = None) -> None:
        """``keys``: those of all its calls, which then name only the arguments. Raises TypeError for others than its own."""
        self.lua = Lua(lua) if isinstance(lua, str) else lua
        self.text = self.lua.text.encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest()
        self._begin: tuple[Any, ...] = ("EVALSHA", self.sha, len(self.lua.keys))
        args = [*self.lua.args, self.lua.many] if self.lua.many else self.lua.args
        self._names = (*self.lua.keys, *args) if keys is None else (*args,)
        if keys is not None:
            if keys.keys() != set(self.lua.keys):
                raise TypeError(f"expected {', '.join(self.lua.keys)} for a script, found {', '.join(keys)}")
            self._begin += tuple(keys[name] for name in self.lua.keys)
        many_names = len(self._names) > 1
        self._pick = (
            itemgetter(*self._names) if many_names else lambda given: tuple(given[name] for name in self._names)
        )

    def on(self, **keys: str) -> Self:
        """The same script for keys that stay."""
        return type(self)(self.lua, keys)

    def command(self, **given: Any) -> tuple[Any, ...]:
        """The command that calls the script, with its keys and arguments by name. Raises TypeError where the names differ."""
        try:
            found = self._pick(given)
        except KeyError:
            found = ()
        if len(found) != len(given):
            raise TypeError(f"expected {', '.join(self._names)} for a script, found {', '.join(given)}")
        if not self.lua.many:
            return (*self._begin, *found)
        if not self.lua.fields:
            return (*self._begin, *found[:-1], *found[-1])
        command = [*self._begin, *found[:-1]]
        for row in found[-1]:
            command += astuple(row)
        return tuple(command)

    def call(self, client: redis.Redis, /, **given: Any) -> Any:
        """Calls the script and returns its reply. Raises the server's refusal, and what ``connect.AWAY`` lists."""
        return value(send(client, [self.command(**given)], [self])[0])


@dataclass(frozen=True, slots=True)
class _File:
    """A Lua file: the lists of its head, and what follows the head. ``rows``: the fields of each by name."""

    path: Path
    heads: dict[str, list[str]]
    rows: dict[str, tuple[str, ...]]
    body: str

    def names(self, head: str) -> list[str]:
        return self.heads.get(head, [])


def _read(path: Path, text: str) -> _File:
    lines = text.splitlines(keepends=True)
    length = next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))
    told: dict[str, str] = {}
    last = ""
    for line in lines[:length]:
        if found := _HEAD.match(line):
            last = found[1]
            told[last] = found[2]
        elif last and (found := _MORE.match(line)):
            told[last] += f" {found[1]}"
        elif last:
            raise ValueError(f"{path}: expected what it does before the other lines of its head, found {line.strip()}")
    if not length or "--" not in lines[0] or _HEAD.match(lines[0]):
        raise ValueError(f"{path}: expected a comment that says what it does")
    heads: dict[str, list[str]] = {}
    rows: dict[str, tuple[str, ...]] = {}
    for head, items in told.items():
        names = list(_NAMES.finditer(items))
        if "".join(one[0] for one in names) != items:
            raise ValueError(f"{path}: expected names after {head}, found {items}")
        heads[head] = [one[1] for one in names]
        rows |= {one[1]: tuple(re.findall(r"[\w.]+", one[2])) for one in names if one[2] is not None}
    return _File(path, heads, rows, "".join(lines[length:]))


class Folder:
    """A folder of Lua files, and the constants that they may name. Read at import: the same files give the same texts."""

    def __init__(self, path: Path, constants: Mapping[str, str | int] | None = None, *, first: str = "") -> None:
        """``first``: the file that stands before the keys and arguments of each script."""
        self._path, self._constants, self._first = path, constants or {}, [first] if first else []

    def read(self, name: str, *, flags: str = "", **rows: type[Any]) -> Lua:
        """A script of the folder. ``flags`` replace those of its head; ``rows``: the struct of each row in its head.

        Raises ValueError where a head is wrong, or does not agree with its script, with Python's constants or with ``rows``.
        """
        path = self._path / f"{name}.lua"
        return self.compose(path.read_text(encoding="utf-8"), path=path, flags=flags, **rows)

    def compose(self, text: str, *, path: Path = Path(), flags: str = "", **rows: type[Any]) -> Lua:
        """The same, of a text that begins with a head."""
        first = self._with_used(self._first, {})
        script = _read(path, text)
        parts = self._with_used(script.names("uses"), first)
        _fill(script, parts.values())
        keys, args = script.names("keys"), script.names("args")
        many = args.pop() if args and (args[-1].endswith("...") or args[-1] in script.rows) else ""
        fields = script.rows.get(many, ())
        many = many.removesuffix("...")
        taken = [*keys, *args, many] if many else [*keys, *args]
        for part in parts.values():
            if missing := set(part.names("needs")) - set(taken):
                raise ValueError(
                    f"{path}: expected {missing} among its keys and arguments: {part.path.name} needs them"
                )
        if script.rows != {name: getattr(of, "__struct_fields__", ()) for name, of in rows.items()}:
            raise ValueError(f"{path}: expected rows of {script.rows}, found {rows}")
        flags = flags or " ".join(script.names("flags"))
        pieces = [
            f"#!lua flags={flags}\n" if flags else "#!lua\n",
            *(self._body(part) for part in first.values()),
            _locals("KEYS", keys),
            _locals("ARGV", args),
            _many(many, fields, len(args)),
            *(self._body(part) for name, part in parts.items() if name not in first),
            self._body(script),
        ]
        files = tuple(part.path for part in parts.values())
        return Lua("".join(pieces), tuple(keys), tuple(args), many, fields, (*files, path) if path.name else files)

    def _with_used(self, names: Sequence[str], before: Mapping[str, _File]) -> dict[str, _File]:
        """Files and those that they use, each after what it uses."""
        found = dict(before)
        for name in names:
            if name not in found:
                own = self._path / f"{name}.lua"
                path = own if own.exists() else _SHARED / own.name
                part = _read(path, path.read_text(encoding="utf-8"))
                found |= self._with_used(part.names("uses"), found)
                _fill(part, found.values())
                found[name] = part
        return found

    def _body(self, file: _File) -> str:
        """What follows the head, with the values of the constants that the head names, and what makes its rows."""
        named, used = set(file.names("constants")), set()

        def put(found: re.Match[str]) -> str:
            token = found[0]
            if not token[0].isupper() or token in _OF_REDIS:
                return token
            used.add(token)
            return _literal(self._constants.get(token, "")) if token in named else token

        body = _TOKENS.sub(put, file.body)
        if wrong := (used - named) | (named - self._constants.keys()):
            raise ValueError(
                f"{file.path}: expected constants of Python that its head names, found {', '.join(sorted(wrong))}"
            )
        return "".join(_makers(name, file.rows[name], file.body) for name in file.names("rows")) + body


def _fill(file: _File, used: Iterable[_File]) -> None:
    """Puts the fields of other rows into those that name them."""
    known = {name: fields for one in used for name, fields in one.rows.items()}
    for name, fields in file.rows.items():
        file.rows[name] = tuple(
            one for field in fields for one in (known.get(field[2:], ()) if field.startswith("..") else (field,))
        )


def _makers(name: str, fields: Sequence[str], body: str) -> str:
    """The functions of a row that a body calls."""
    made = ""
    if f"{name}_row(" in body:
        made += f"local function {name}_row(row) return {{{', '.join(f'row.{one}' for one in fields)}}} end\n"
    if f"{name}_of(" in body:
        items = ", ".join(f"{one} = list[{number}]" for number, one in enumerate(fields, 1))
        made += f"local function {name}_of(list) return {{{items}}} end\n"
    return made


def _literal(value: str | int) -> str:
    return str(value) if isinstance(value, int) else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _locals(of: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    return f"local {', '.join(names)} = {f'unpack({of}, 1, {len(names)})' if len(names) > 1 else f'{of}[1]'}\n"


def _many(name: str, fields: Sequence[str], before: int) -> str:
    """Reads the arguments after the first ones into a list, or into a list of tables."""
    if not name:
        return ""
    row = (
        ", ".join(
            f"{one} = ARGV[at + {number}]" if number else f"{one} = ARGV[at]" for number, one in enumerate(fields)
        )
        if fields
        else ""
    )
    step = f", {len(fields)}" if fields else ""
    item = f"{{{row}}}" if fields else "ARGV[at]"
    return f"local ARGV, {name} = ARGV, {{}}\nfor at = {before + 1}, #ARGV{step} do {name}[#{name} + 1] = {item} end\n"


def send(client: redis.Redis | Link, commands: Sequence[tuple[Any, ...]], scripts: Sequence[Script]) -> list[Any]:
    """Sends commands in one write, without MULTI, and returns their replies. A refusal is returned as a reply, not raised.

    ``scripts`` are the scripts that the commands call. A Redis that does not know them, since it was restarted, is sent
    the scripts, and then the refused commands again. Raises what ``connect.AWAY`` lists; it is then unknown which of the
    commands took effect.
    """
    replies = _exchange(client, commands)
    unknown = [i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
    if unknown:
        for reply in _exchange(client, [("SCRIPT", "LOAD", script.text) for script in scripts]):
            value(reply)
        for i, reply in zip(unknown, _exchange(client, [commands[i] for i in unknown]), strict=True):
            replies[i] = reply
    return replies


def _exchange(client: redis.Redis | Link, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    if isinstance(client, Link):
        return client.call(commands)
    packed = b"".join(map(hiredis.pack_command, commands))
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_packed_command([packed], check_health=False)  # type: ignore[no-untyped-call]
        return [_reply(connection) for _ in commands]
    except BaseException:
        # The reply may still arrive, and must not be taken for the reply to the next command.
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    finally:
        pool.release(connection)


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.exceptions.ResponseError as error:
        return error


def value(reply: Any) -> Any:
    """The reply. Raises it if it is a refusal."""
    if isinstance(reply, Exception):
        raise reply
    return reply
