"""What workers report about definitions that only they can compile, with a real gateway and real workers."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jobs.definition.catalog import Catalog
from jobs.pool import examiner as examiner_module
from jobs.pool.examiner import Examiner
from regions.settings import ROOT
from tests import forked
from tests.service.conftest import RedisInstance
from tests.service.gateway import Stack
from tests.service.web.api.test_records import replace
from tests.waiting import until
from tests.wire import ask

PLAIN = """
title = "Plain"
url = 'https://plain.example/'
region = "fra"
[fields]
name = "b"
"""
XPATH = PLAIN.replace('"b"', '{xpath = "EXPRESSION"}')
SOURCE = "extra.source"


@pytest.fixture(scope="module")
def stack(tmp_path_factory, rabbitmq):
    """A gateway, and the workers of fra as ``nearfetch workers`` runs them."""
    folder = tmp_path_factory.mktemp("stack")
    hub, own = RedisInstance(folder, "hub"), RedisInstance(folder, "fra")
    stack = Stack(folder, rabbitmq, hub)
    (folder / "sources" / f"{SOURCE}.toml").write_text(PLAIN)
    environ = {key: value for key, value in os.environ.items() if not key.startswith("NEARFETCH")} | {
        "NEARFETCH__SOURCES__PATH": str(folder / "sources"),
        "NEARFETCH__REGIONS__PATH": str(folder / "regions"),
        "NEARFETCH__HUB__REDIS": hub.url,
        "NEARFETCH__REGION__FRA__REDIS__URL": own.url,
        "NEARFETCH__REGION__FRA__SCALE__MIN": "1",
        "NEARFETCH__SECRET__OWN": "1",
    }
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "scripts.cli", "workers", "fra"]
    workers = subprocess.Popen(command, cwd=ROOT, env=environ, start_new_session=True)
    try:
        until(lambda: shown(stack).get("health") == "ok", "the region to tell its sources", 60)
        yield stack
    finally:
        os.killpg(workers.pid, signal.SIGTERM)
        workers.wait(60)
        stack.stop()
        own.stop()
        hub.stop()


def shown(stack, source=SOURCE):
    return ask(stack.port, "GET", f"/v1/sources/{source}").json()


def write(stack, text, code=None):
    path = stack.folder / "sources" / f"{SOURCE}.toml"
    if code is not None:
        replace(path.with_suffix(".py"), code)
    replace(path, text)


@pytest.fixture(autouse=True)
def mended(request):
    """Each test ends by seeing the source well again."""
    yield
    if "stack" in request.fixturenames:
        stack = request.getfixturevalue("stack")
        (stack.folder / "sources" / f"{SOURCE}.py").unlink(missing_ok=True)
        write(stack, PLAIN)
        until(lambda: shown(stack).get("health") == "ok", "the source to be well again")


def test_a_bad_xpath_shows_as_broken_and_only_there(stack):
    """The gateway itself can't tell: it reads definitions without lxml."""
    write(stack, XPATH.replace("EXPRESSION", "//["))
    until(lambda: shown(stack).get("health") == "broken", "the source to be broken")
    assert shown(stack)["reasons"] == [
        f'fra: {SOURCE}.toml:6: fields.name: expected XPath 1.0, found "//[": Invalid expression'
    ]
    assert shown(stack, "demo.list")["health"] == "ok"
    write(stack, XPATH.replace("EXPRESSION", "//b"))
    until(lambda: shown(stack).get("health") == "ok", "the mended source to be well")


def test_an_id_py_that_does_not_load_shows_as_broken(stack):
    write(
        stack,
        PLAIN,
        "import os\n\ndef next_page(page): ...\n\nif 'NEARFETCH__SECRET__OWN' in os.environ: x = 1\nprint(x)\n",
    )
    until(lambda: shown(stack).get("health") == "broken", "the source to be broken")
    assert shown(stack)["reasons"] == [f"fra: {SOURCE}.py:6: NameError: name 'x' is not defined"]


def test_an_id_py_that_ends_its_process_shows_as_broken(stack):
    """It ends neither the workers nor their reports about other sources."""
    write(stack, PLAIN, "import os\n\ndef next_page(page): ...\n\nos.kill(os.getpid(), 9)\n")
    until(lambda: shown(stack).get("health") == "broken", "the source to be broken")
    said = f"fra: {SOURCE}.py: expected to be loaded, found that its process was ended by SIGKILL"
    assert shown(stack)["reasons"] == [said]
    assert shown(stack, "demo.list")["health"] == "ok"


# The examiner by itself.


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(examiner_module, "subprocess", forked.python(forked.EXAMINER))
    (tmp_path / "first.toml").write_text(PLAIN)
    (tmp_path / "second.toml").write_text(PLAIN)
    return tmp_path


@pytest.fixture
def examined(folder):
    """Examines what is in the folder now, and gives what is wrong with each source; and the examiner."""
    changed = threading.Event()
    examiner = Examiner(changed.set, seconds=10.0)
    catalog = Catalog([folder], "fra")

    def examine() -> dict[str, str | None]:
        changed.clear()
        catalog.refresh()
        examiner.look(catalog.entries())
        assert changed.wait(60)
        return {entry.id: examiner.fault(entry) for entry in catalog.entries()}

    yield examine
    examiner.stop()


def counting(mark: Path) -> str:
    """An ID.py that leaves a line in a file each time that it is loaded."""
    return f"with open({str(mark)!r}, 'a') as file:\n    file.write('loaded\\n')\ndef next_page(page): ...\n"


def test_only_what_changed_is_compiled(folder, examined):
    marks = {name: folder / f"{name}.mark" for name in ("first", "second")}
    for name, mark in marks.items():
        (folder / f"{name}.py").write_text(counting(mark))
    assert examined() == {"first": None, "second": None}
    (folder / "second.toml").write_text(XPATH.replace("EXPRESSION", "//["))
    found = examined()
    assert found["first"] is None
    assert 'found "//["' in found["second"]
    assert {name: mark.read_text() for name, mark in marks.items()} == {"first": "loaded\n", "second": "loaded\n" * 2}


@pytest.mark.parametrize(
    ("does", "wrong"),
    [
        ("import time; time.sleep(600)", "was ended by SIGKILL"),
        ("import os; os._exit(3)", "was ended by exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 1)", f"was ended by signal {signal.SIGRTMIN + 1}"),
        ("import atexit, time; atexit.register(time.sleep, 600)", ""),
    ],
)
def test_one_that_never_loads_keeps_no_other_from_being_examined(folder, examined, does, wrong):
    """Nor does one that ends the process, or keeps it from ending."""
    (folder / "first.py").write_text(f"def next_page(page): ...\n{does}\n")
    (folder / "second.toml").write_text(XPATH.replace("EXPRESSION", "//["))
    found = examined()
    assert 'found "//["' in found["second"]
    expected = f"first.py: expected to be loaded, found that its process {wrong}" if wrong else None
    assert found["first"] == expected


def test_what_is_written_where_answers_are_expected_is_no_answer(folder, examined):
    """It is not taken for a fault of another source, and the thread goes on."""
    writes = "import os\nfor one in range(3, 20):\n    try: os.write(one, b'junk\\n')\n    except OSError: pass\n"
    (folder / "first.py").write_text(f"{writes}def next_page(page): ...\n")
    assert examined()["second"] is None
    (folder / "first.py").unlink()
    assert examined() == {"first": None, "second": None}


def test_a_loop_is_ended_by_the_time_that_it_computes(folder, tmp_path):
    """Also when its parent does not end it: the kernel counts its processor time."""
    path = folder / "first.toml"
    path.with_suffix(".py").write_text("def next_page(page): ...\nwhile True: pass\n")
    program = "import jobs.pool.examiner as e; e.CPU_SECONDS = 1; e.serve()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, input=f'"{path}"\n'.encode(), capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGXCPU


def test_nothing_is_left_when_it_is_stopped(folder):
    (folder / "first.py").write_text(
        f"import os, time\nopen({str(folder / 'pid')!r}, 'w').write(str(os.getpid()) + '.')\ntime.sleep(600)\ndef next_page(page): ...\n"
    )
    catalog = Catalog([folder], "fra")
    catalog.refresh()
    examiner = Examiner(lambda: None)
    examiner.look(catalog.entries())
    pid = until(lambda: (folder / "pid").exists() and (folder / "pid").read_text(), "the code to be loaded")
    examiner.stop()
    until(lambda: not Path(f"/proc/{pid.rstrip('.')}").exists(), "its process to be gone")
