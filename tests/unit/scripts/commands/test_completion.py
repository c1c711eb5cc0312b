"""Completion as people meet it: real shells at a terminal, a key pressed, and the words that the command then gets."""

import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from regions.settings import ROOT
from scripts.cli import main
from scripts.commands import completion
from tests.waiting import until

# A command of this name: completes as ours does; run, it writes down its words.
COMMAND = f"""#!/bin/sh
if [ -n "$_NEARFETCH_COMPLETE" ]; then exec {sys.executable} -P -m scripts.cli; fi
{sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@" >> "$ANSWERS"
"""
SHELLS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
BEFORE = {"bash": "bind 'set bell-style none'", "zsh": "autoload -Uz compinit; compinit -u -D"}

SHIPS = """
title = "Ships, by flag: $HOME; all"
url = 'https://ships.example/{xflag}{?xsize,xdeep,xfrom,to}'
[params]
xsize = {enum = ["small", "a b", "$(touch hacked)", "`x`", "big:1"]}
xdeep = {type = "bool"}
xfrom = {type = "date", example = "2026-11-24"}
xflag = {required = true, title = "Where it\\nis registered"}
[fields]
name = "b"
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with the command, a definition of one's own, and no gateway."""
    for variable in [name for name in os.environ if name.startswith(("NEARFETCH", "_NEARFETCH"))]:
        monkeypatch.delenv(variable)
    command = tmp_path / "bin" / "nearfetch"
    command.parent.mkdir()
    command.write_text(COMMAND)
    command.chmod(0o755)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "xships.toml").write_text(SHIPS)
    variables = {
        "PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path),
        "ANSWERS": str(tmp_path / "answers"), "NEARFETCH_DATA": str(tmp_path / "nothing"), "TERM": "dumb",
        "NEARFETCH__SOURCES__PATH": str(tmp_path / "own"), "XDG_CONFIG_HOME": str(tmp_path), "HISTFILE": "/dev/null",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def needs(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


@contextmanager
def terminal(shell, folder):
    """A shell at a terminal; gives a function that types."""
    ours, its = os.openpty()
    process = subprocess.Popen(SHELLS[shell], stdin=its, stdout=its, stderr=its, cwd=folder, start_new_session=True)
    os.close(its)
    shown = []
    reader = threading.Thread(target=read_all, args=(ours, shown))
    reader.start()
    try:
        yield lambda text: os.write(ours, text.encode())
        os.write(ours, b"exit\n")
        process.wait(60)
    except BaseException:
        print(b"".join(shown).decode(errors="replace"))
        raise
    finally:
        process.kill()
        process.wait()
        reader.join()
        os.close(ours)


def read_all(descriptor, shown):
    """Everything that the terminal shows, until the shell is gone."""
    try:
        while part := os.read(descriptor, 4096):
            shown.append(part)
    except OSError:
        return


def typed(shell, folder, lines):
    """The words that the command got for each line, as a shell made them of the keys."""
    answers = folder / "answers"
    found = []
    with terminal(shell, folder) as keys:
        keys(f"{BEFORE[shell]}\n")
        keys(f'eval "$(nearfetch completion {shell})"\n'.replace("nearfetch", f"{sys.executable} -P -m scripts.cli"))
        for number, line in enumerate(lines, 1):
            keys(line + "\n")
            until(lambda number=number: answers.exists() and answers.read_text().count("\n") == number, line)
            found.append(json.loads(answers.read_text().splitlines()[-1]))
    return found


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_commands_sources_params_and_values(shell, world):
    """One line per kind of word; what may be followed by more gets no space behind it."""
    needs(shell)
    keys = {
        "nearfetch fet\tx": ["fetch", "x"],
        "nearfetch fetch --cu\tecb.rates": ["fetch", "--curl", "ecb.rates"],
        "nearfetch fetch books.l\tx": ["fetch", "books.list", "x"],
        "nearfetch fetch xsh\txfl\tde": ["fetch", "xships", "xflag=de"],
        "nearfetch fetch xships xflag=de xde\tt\txsi\ts\tx": [
            "fetch",
            "xships",
            "xflag=de",
            "xdeep=true",
            "xsize=small",
            "x",
        ],
        "nearfetch fetch xships xsize=big\tx": ["fetch", "xships", "xsize=big:1", "x"],
        "nearfetch fetch xships xsize=big:\tx": ["fetch", "xships", "xsize=big:1", "x"],
        "nearfetch fetch --json ecb.rates xships xfr\t2\tx": [
            "fetch",
            "--json",
            "ecb.rates",
            "xships",
            "xfrom=2026-11-24",
            "x",
        ],
        "nearfetch region dra\tny\tx": ["region", "drain", "nyc", "x"],
        "nearfetch config sh\t--js\tx": ["config", "show", "--json", "x"],
        "nearfetch fetch nothing.lik\t.that x": ["fetch", "nothing.lik.that", "x"],
        "nearfetch completion fi\tx": ["completion", "fish", "x"],
    }
    assert typed(shell, world, keys) == list(keys.values())
    assert not (world / "hacked").exists()


def test_fish_completes_commands_sources_params_and_values(world):
    """Fish tells what it would offer, each with what it says of it."""
    needs("fish")

    def offered(line):
        script = f"{sys.executable} -P -m scripts.cli completion fish | source; complete -C {json.dumps(line)}"
        done = subprocess.run(
            ["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True, cwd=world, timeout=60
        )
        assert done.stderr == ""
        return [tuple(line.split("\t")) for line in done.stdout.splitlines()]

    assert [word for word, _ in offered("nearfetch fet")] == ["fetch"]
    assert ("xships", "Ships, by flag: $HOME; all") in offered("nearfetch fetch xsh")
    assert offered("nearfetch fetch xships xfl") == [("xflag=", "Where it is registered")]
    assert {word for word, _ in offered("nearfetch fetch --json xships xfr")} == {"xfrom="}
    assert {one[0] for one in offered("nearfetch fetch xships xflag=de xsize=")} == {"xsize=small", "xsize=big:1"}
    assert [one[0] for one in offered("nearfetch fetch xships xdeep=t")] == ["xdeep=true"]
    assert not (world / "hacked").exists()


def offered(monkeypatch, line):
    """What is offered behind a line, by bash's protocol."""
    monkeypatch.setenv("_NEARFETCH_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_LINE", line)
    done = CliRunner().invoke(main, [], prog_name="nearfetch")
    return [answer.partition(",")[2] for answer in done.output.splitlines() if answer]


def test_required_params_come_first_and_given_ones_not_again(world, monkeypatch):
    """Params belong to the source before them."""
    first = offered(monkeypatch, "nearfetch fetch xships ")
    assert first[:4] == ["xflag=", "xsize=", "xdeep=", "xfrom="]
    assert {"xships", "ecb.rates"} <= set(first[4:])
    assert offered(monkeypatch, "nearfetch fetch xships xflag=a xf") == ["xfrom="]
    assert offered(monkeypatch, "nearfetch fetch xships xflag=a xships xfl") == ["xflag="]
    assert offered(monkeypatch, "nearfetch fetch ecb.rates xfl") == []
    assert offered(monkeypatch, "nearfetch fetch xfla") == []


def test_what_a_shell_would_not_take_as_one_word_is_not_offered(world, monkeypatch):
    """A value ends up in the command line as it is: what a gateway says must not run there."""
    assert offered(monkeypatch, "nearfetch fetch xships xsize=") == ["xsize=small", "xsize=big:1"]


def test_a_gateway_that_does_not_answer_costs_a_fraction_of_a_second_and_no_word(world, monkeypatch):
    """A port that takes connections and says nothing: the definitions at hand are offered."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setenv("NEARFETCH_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert offered(monkeypatch, "nearfetch fetch xship") == ["xships"]
    assert completion.GATEWAY_SECONDS < 0.5


@pytest.mark.parametrize("shell", completion.CLASSES)
def test_the_script_of_a_shell_is_printed(shell, world):
    """And names the command that it completes."""
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert "_nearfetch_completion" in done.output
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2
