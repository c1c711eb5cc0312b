"""Completion for bash, zsh and fish: click's commands and options, and the sources and params of ``fetch``.

Sources come from the gateway that the command would ask, if it answers at once. Otherwise they come from the definitions
of this checkout and of NEARFETCH__SOURCES__PATH. Only words that every shell takes as one plain word are offered, since a
shell inserts them without quoting.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from scripts.stack.gateway_client import GatewayClient, NoGateway, Refused

PROGRAM: Final = "nearfetch"
VARIABLE: Final = "_NEARFETCH_COMPLETE"
GATEWAY_SECONDS: Final = 0.2  # a person is waiting, a finger on the Tab key
DEFINITIONS: Final = Path(__file__).resolve().parents[2] / "jobs" / "sources"

WORD: Final = re.compile(r"[\w.:/@%+,-]+")  # no shell treats these specially; ":" is dealt with below

Known = Mapping[str, Mapping[str, Any]]  # a source's id → its title and params


# Bash breaks words at "=" and ":", and would complete only the part after them. So the function gives click the line as
# it was typed, and cuts off what bash keeps. No space is added after a param's name.
_BASH: Final = r"""%(complete_func)s() {
    local line="${COMP_LINE:0:COMP_POINT}" word kept="" mark type value

    word="${line##*[[:space:]]}"
    for mark in "=" ":"; do
        if [[ $COMP_WORDBREAKS == *"$mark"* && $word == *"$mark"* ]]; then
            value="${word%%"$mark"*}$mark"
            (( ${#value} > ${#kept} )) && kept=$value
        fi
    done
    COMPREPLY=()
    while IFS=',' read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                [[ $value == *= ]] && compopt -o nospace
                COMPREPLY+=("${value#"$kept"}")
                ;;
        esac
    done < <(env COMP_LINE="$line" %(complete_var)s=bash_complete "${1/#\~/$HOME}" 2>/dev/null)
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

# Like click's, but calls the program by the name that was typed, which may be a path, and adds no space after a param's name.
_ZSH: Final = r"""#compdef %(prog_name)s

%(complete_func)s() {
    local -a response plain described open
    local type key descr

    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) %(complete_var)s=zsh_complete ${~words[1]} 2>/dev/null)}")
    for type key descr in ${response}; do
        if [[ "$type" == "dir" ]]; then
            _path_files -/
        elif [[ "$type" == "file" ]]; then
            _path_files -f
        elif [[ "$key" == *= ]]; then
            open+=("$key")
        elif [[ "$descr" == "_" ]]; then
            plain+=("$key")
        else
            described+=("$key":"$descr")
        fi
    done
    [[ -n "$open" ]] && compadd -U -S "" -V params -a open
    [[ -n "$described" ]] && _describe -V unsorted described -U
    [[ -n "$plain" ]] && compadd -U -V unsorted -a plain
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

# Like click's, but calls the program by the name that was typed. Fish itself adds no space after "=".
_FISH: Final = r"""function %(complete_func)s
    set -l typed (commandline -opc)
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) $typed[1] 2>/dev/null)

    for completion in $response
        set -l metadata (string split -m 1 "," $completion)
        switch $metadata[1]
            case dir
                __fish_complete_directories $metadata[2]
            case file
                __fish_complete_path $metadata[2]
            case plain
                echo $metadata[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class Bash(BashComplete):
    """Bash. The function passes the line up to the cursor."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor's word, and the typed part of that word."""
        line = os.environ["COMP_LINE"]
        args = split_arg_string(line)[1:]
        return (args, "") if line[-1:].isspace() or not args else (args[:-1], args[-1])


class Zsh(ZshComplete):
    """Zsh."""

    source_template = _ZSH


class Fish(FishComplete):
    """Fish."""

    source_template = _FISH


CLASSES: Final[dict[str, type[ShellComplete]]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}
for _shell, _class in CLASSES.items():
    add_completion_class(_class, _shell)


def script(command: click.Command, shell: str) -> str:
    """The script for a shell."""
    return CLASSES[shell](command, {}, PROGRAM, VARIABLE).source()


def words(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The words that may come next in a ``fetch``: params of the source before it, values of a param, or another source."""
    before = list(context.params.get("words") or ())
    known = _sources(context.params.get("url") or "", context.params.get("data"))
    source = next((word for word in reversed(before) if "=" not in word), "")
    params = known.get(source, {}).get("params", {})
    name, is_param, beginning = incomplete.partition("=")
    if is_param:
        return [
            CompletionItem(f"{name}={value}")
            for value in _values(params.get(name, {}))
            if value.startswith(beginning) and WORD.fullmatch(value)
        ]
    given = {word.partition("=")[0] for word in before[_place(before, source) :]}
    names = sorted((one for one in params if one not in given), key=lambda one: not params[one].get("required"))
    return [
        *(CompletionItem(f"{one}=", help=_describe(params[one])) for one in names if _fits(one, incomplete)),
        *(
            CompletionItem(one, help=_one_line(known[one].get("title")))
            for one in sorted(known)
            if _fits(one, incomplete)
        ),
    ]


def regions(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The names of regions: those of the settings, or of the ``scripts/up`` on this machine."""
    from scripts.commands.options import load_near  # noqa: PLC0415 - each import delays the shell

    data = context.params.get("data")
    try:
        found = load_near(Path(data) if data else None).region
    except (SystemExit, OSError):  # a person is waiting for the completion, and wants no list of faults
        return []
    return [CompletionItem(name, help=_one_line(one.title)) for name, one in found.items() if _fits(name, incomplete)]


def _fits(word: str, incomplete: str) -> bool:
    return word.startswith(incomplete) and WORD.fullmatch(word) is not None


def _place(before: list[str], source: str) -> int:
    """The index at which the params of the last source begin."""
    return len(before) - before[::-1].index(source) if source else 0


def _describe(param: Mapping[str, Any]) -> str:
    kind = "required" if param.get("required") else "optional"
    return _one_line(param.get("title")) or f"{param.get('type', 'str')}, {kind}"


def _one_line(text: object) -> str:
    """A text on one line, since line ends separate the parts of an answer in the shells' protocols."""
    return " ".join(str(text or "").split())


def _values(param: Mapping[str, Any]) -> list[str]:
    """Values to choose from: all possible ones, or the default and the example."""
    if param.get("enum"):
        found = param["enum"]
    elif param.get("type") == "bool":
        found = [True, False]
    else:
        found = [param.get(key) for key in ("default", "example")]
    texts = (one if isinstance(one, str) else json.dumps(one) for one in found if one is not None)
    return list(dict.fromkeys(texts))


def _sources(url: str, data: Path | str | None) -> Known:
    try:
        client = GatewayClient.found(url, Path(data) if data else None)
        return {one["id"]: one for one in client.get("/v1/sources", GATEWAY_SECONDS)["sources"]}
    except (NoGateway, Refused, OSError, ValueError, LookupError, TypeError):
        return _written()


def _written() -> Known:
    """The definitions on this machine that are readable TOML. Other faults in them do not matter here."""
    known: dict[str, Mapping[str, Any]] = {}
    more = os.environ.get("NEARFETCH__SOURCES__PATH", "")
    folders = [DEFINITIONS, *(Path(folder).expanduser() for folder in more.split(os.pathsep) if folder)]
    for path in (path for folder in folders for path in sorted(folder.glob("*.toml"))):
        try:
            definition = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        params = definition.get("params")
        is_whole = isinstance(params, dict) and all(isinstance(one, dict) for one in params.values())
        known[path.stem] = {"title": definition.get("title", ""), "params": params if is_whole else {}}
    return known
