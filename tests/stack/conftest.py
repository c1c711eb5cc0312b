"""A whole stack, started by ``scripts/up --detach`` as a user does it; gone when the tests are, however they end."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from regions.process import Process
from regions.settings import ROOT
from scripts.stack.ports import free_block
from scripts.stack.processes import group, signal_group
from scripts.stack.services import Guard
from tests import forked
from tests.waiting import until
from tests.wire import ask

UP, NEARFETCH = ROOT / "scripts" / "up", ROOT / "scripts" / "nearfetch"
FORKING_UP = "from tests import supervisord; supervisord.up()"
SECONDS = 300.0  # of a machine that may have much else to do


@dataclass
class Stack:
    """One stack: its data folder, its gateway's address, and what ``up`` said when it was ready.

    ``forks``: its Python parts are forked, which takes a tenth of the time; else they start as a user's do.
    """

    data: Path
    port: int
    environment: dict[str, str]
    output: str = ""
    forks: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs scripts/up on this data folder; where it forks, without the shell script, which only installs what is missing."""
        words = ("--data", str(self.data), *words)
        if not self.forks:
            return run(UP, *words, environment=self.environment, check=check)
        self.data.mkdir(mode=0o700, exist_ok=True)
        return python(["-c", FORKING_UP, *words], forked.UP, self.environment, check=check)

    def end(self) -> None:
        """Stops it where it runs, one that forks without being gentle; nothing of it is left."""
        if self.forks:
            run = self.data / "run"
            for file in (run / "supervisord.pid", *run.glob("*.pid")):  # first of all, who starts the others again
                if (process := Process.read(file)) and group(process):
                    signal_group(process.pid, signal.SIGKILL)
        if self.processes():
            self.up("--stop")
        until(lambda: self.processes() == [], "its processes to end")

    def nearfetch(
        self, *words: str, check: bool = True, program: Sequence[str] = ("-m", "scripts.cli")
    ) -> subprocess.CompletedProcess[str]:
        """Runs the command line against this stack, as ``scripts/nearfetch`` does; starting that takes half a second of CPU."""
        environment = {**self.environment, "NEARFETCH_DATA": str(self.data), "PYTHONPATH": str(ROOT)}
        return python([*program, *words], forked.COMMAND, environment, check=check)

    def succeeds(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The same, until it ends with 0, as its user would: a busy machine refuses a request now and then."""
        seen: list[subprocess.CompletedProcess[str]] = []

        def is_well() -> bool:
            seen.append(self.nearfetch(*words, check=False))
            return seen[-1].returncode == 0

        with contextlib.suppress(AssertionError):
            until(is_well, " ".join(words))
        return checked(words, seen[-1])

    def script(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The same by the script itself."""
        return run(NEARFETCH, *words, environment={**self.environment, "NEARFETCH_DATA": str(self.data)}, check=True)

    def get(self, path: str) -> object:
        """A JSON answer of the gateway. A hub that is busy for half a second counts as away: then it is asked again."""
        reply = until(lambda: (found := ask(self.port, "GET", path)).status != 503 and found, f"an answer of {path}")
        assert reply.status == 200, reply
        return reply.json()

    def log(self, part: str) -> str:
        """What a part logged."""
        return (self.data / "log" / f"{part}.log").read_text(encoding="utf-8", errors="replace")

    def pids(self) -> dict[str, int]:
        """The process of each part, as ``up`` notes it."""
        return {file.stem: int(file.read_text().split()[0]) for file in (self.data / "run").glob("*.pid")}

    def processes(self) -> list[str]:
        """Every process that has to do with this data folder, by its arguments, environment or working folder."""
        return [found for entry in Path("/proc").iterdir() if entry.name.isdigit() for found in self._mentions(entry)]

    def _mentions(self, entry: Path) -> Iterator[str]:
        try:
            arguments, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            where = [*arguments.split(b"\0"), *environment.split(b"\0"), bytes((entry / "cwd").readlink())]
        except OSError:
            return
        if b"guard" not in arguments.split(b"\0") and any(str(self.data).encode() in text for text in where):
            yield f"{entry.name} {arguments.replace(bytes(1), b' ').decode(errors='replace')}"


def run(*command: object, environment: dict[str, str], check: bool) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, check=False, timeout=SECONDS,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return checked(command, done) if check else done


def python(
    command: list[str], imported: tuple[str, ...], environment: dict[str, str], *, check: bool
) -> subprocess.CompletedProcess[str]:
    done = forked.run(command, imported=imported, cwd=ROOT, env=environment, text=True, timeout=SECONDS)
    return checked(command, done) if check else done


def checked(command: Sequence[object], done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """What ended well, or the test is at fault."""
    if done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


@pytest.fixture(scope="package")
def make_stack() -> Iterator[Callable[..., Stack]]:
    """Makes a stack that is not started yet; keywords are variables of its environment, ``forks`` is ``Stack.forks``."""
    stacks, guards = [], []

    def make(*, forks: bool = False, **variables: str) -> Stack:
        folder = Path(tempfile.mkdtemp(prefix="nearfetch-stack-"))
        clean = {key: value for key, value in os.environ.items() if not key.startswith("NEARFETCH")}
        stack = Stack(folder / "data", free_block(), {**clean, **variables}, forks=forks)
        stop = f'"{UP}" --stop --data "{stack.data}"; rm -rf "{folder}"'
        stacks.append(stack)
        guards.append(Guard(["/bin/sh", "-c", stop]))
        return stack

    yield make
    for stack in stacks:
        stack.end()
        shutil.rmtree(stack.data.parent)
    for guard in guards:
        guard.dismiss()


@pytest.fixture(scope="package")
def stack(make_stack: Callable[..., Stack]) -> Stack:
    """The stack that the tests of this folder share, started as a user's is; who hurts it makes it well again."""
    return started(make_stack())


@pytest.fixture(scope="package")
def forked_stack(make_stack: Callable[..., Stack]) -> Stack:
    """Another one for files that say so, so that the folder's tests run in two processes; its Python parts are forked."""
    return started(make_stack(forks=True))


def started(made: Stack) -> Stack:
    # Webhooks with made-up addresses call nobody outside: the proxy is asked for their names, and there is none.
    made.environment["NEARFETCH__WEBHOOKS__PROXY"] = "socks5h://127.0.0.1:9"
    made.output = made.up("--detach", "--port", str(made.port)).stdout
    return made


@pytest.fixture
def inside(stack: Stack):
    """The shared stack's own servers, to hurt; its site is well again afterwards."""
    from tests.stack.driving import Inside  # which drives this module's Stack

    found = Inside(stack)
    yield found
    found.behave()
    found.close()


@pytest.fixture(scope="package")
def one_region(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of regions that has one."""
    folder = tmp_path_factory.mktemp("regions")
    write_region(folder, "fra")
    return str(folder)


@pytest.fixture
def other(make_stack: Callable[..., Stack], one_region: str) -> Iterator[Stack]:
    """A second stack beside the shared one, of one region, that is not started yet; its Python parts are forked."""
    made = make_stack(forks=True, NEARFETCH__REGIONS__PATH=one_region)
    yield made
    made.end()


@dataclass
class Own:
    """A stack of one region whose folders of regions and of sources are a test's own, to change."""

    stack: Stack
    regions: Path
    sources: Path


@pytest.fixture(scope="package")
def own(make_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Own:
    """Shared by the tests of what changes under a running stack; shipped sources of other regions have none here."""
    folder = tmp_path_factory.mktemp("own")
    regions, sources = folder / "regions", folder / "sources"
    sources.mkdir()
    regions.mkdir()
    write_region(regions, "fra")
    made = make_stack(forks=True, NEARFETCH__REGIONS__PATH=str(regions), NEARFETCH__SOURCES__PATH=str(sources))
    made.up("--detach", "--port", str(made.port))
    return Own(made, regions, sources)


def write_region(folder: Path, name: str) -> None:
    """A region's file in a folder of regions: with one worker process, so that it starts with half of the CPU."""
    text = (ROOT / "regions" / "fra.toml").read_text(encoding="utf-8")
    (folder / f"{name}.toml").write_text(
        text.replace("Frankfurt", name.upper()).replace("min = 2", "min = 1"), encoding="utf-8"
    )
