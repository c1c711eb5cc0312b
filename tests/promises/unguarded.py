"""Takes the guard of each promise out, on a copy, and sees the test that stands on it fail, for the reason that it should.

    python -m tests.promises.unguarded            all of them
    python -m tests.promises.unguarded waiters …  some

``tests/promises/NAME.patch`` (and ``NAME.MORE.patch``) takes out what a test of ``tests/promises/test_NAME.py`` stands on.
Its first lines say which tests have to fail, and what each of them has to say then:

    Fails: test_a_name: a regular expression

Another test that fails, or the same test for another reason, does not count: the machine may have been busy. A test that
passes without its guard can't fail, and is worth nothing. Ends with 0 when every test failed as it should, else with 1.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("tests/promises")
SHOWN = 120  # characters of what a test said
FAILS = re.compile(r"^Fails: (test_\w+): (.+)$", re.MULTILINE)


@dataclass
class Outcome:
    """What the tests of a promise did: what each that failed said, what broke before its own assertions, what passed."""

    failed: list[tuple[str, str]] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)

    def fails(self, test: str, reason: str) -> str:
        """What a test, with whatever parameters, said when it failed for a reason; nothing where it did not."""
        found = (re.search(f".*(?:{reason}).*", said) for name, said in self.failed if name.partition("[")[0] == test)
        return next((one[0].strip()[:SHOWN] for one in found if one), "")

    def __str__(self) -> str:
        found = [
            f"{name} {how}: {' '.join(said.split())[:300]}"
            for how, ended in (("failed", self.failed), ("broke", self.broken))
            for name, said in ended
        ]
        return "; ".join([*found, f"{len(self.passed)} passed"])


def names() -> list[str]:
    """Every patch."""
    return sorted(file.stem for file in (ROOT / HERE).glob("*.patch"))


def promise_of(name: str) -> str:
    """The promise that a patch belongs to: ``NAME`` of ``NAME.MORE``."""
    return name.partition(".")[0]


def text_of(name: str) -> tuple[list[tuple[str, str]], str]:
    """What a patch says: (test, what it has to say) of each that must fail, and the patch itself."""
    head, mark, body = (ROOT / HERE / f"{name}.patch").read_text().partition("diff --git ")
    return FAILS.findall(head), mark + body


def copy(folder: Path) -> None:
    """The checkout as it stands, without what git ignores; the same virtual environment."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy2(ROOT / name, target)
    (folder / ".venv").symlink_to((ROOT / ".venv").resolve())


def apply(folder: Path, name: str, *, check_only: bool = False) -> str:
    """Applies a patch; why not, or nothing."""
    words = ["git", "apply", *(["--check"] if check_only else []), str(ROOT / HERE / f"{name}.patch")]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False).stderr.strip()


def outcome(folder: Path, name: str) -> Outcome:
    """What the tests do that a patch names."""
    report = folder / "report.xml"
    file = str(HERE / f"test_{promise_of(name)}.py")
    chosen = ["-k", " or ".join(test for test, _ in text_of(name)[0])]
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *chosen, file]
    subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, check=False)
    found = Outcome()
    for case in ET.parse(report).iter("testcase") if report.exists() else ():
        test = case.get("name", "")
        failure, error = case.find("failure"), case.find("error")
        if failure is not None:
            found.failed.append((test, f"{failure.get('message')}\n{failure.text}"))
        elif error is not None:
            found.broken.append((test, f"{error.get('message')}"))
        else:
            found.passed.append(test)
    return found


def tried(name: str) -> tuple[bool, str]:
    """Whether a promise's tests fail without its guard as they should, and what they said."""
    wanted, _ = text_of(name)
    if not wanted:
        return False, "no line says which test must fail"
    with tempfile.TemporaryDirectory(prefix="nearfetch-unguarded-") as made:
        folder = Path(made)
        copy(folder)
        if fault := apply(folder, name):
            return False, f"does not apply: {fault}"
        found = outcome(folder, name)
    said = {test: found.fails(test, reason) for test, reason in wanted}
    missing = [test for test, text in said.items() if not text]
    if missing:
        return False, f"NOT SEEN BY {', '.join(missing)} ({found})"
    return True, "; ".join(f"{test}: {text}" for test, text in said.items())


def main(wanted: list[str]) -> int:
    """Tries these, or all."""
    unknown = sorted(set(wanted) - set(names()))
    if unknown:
        print(f"no patch: {', '.join(unknown)}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    bad = 0
    for name in wanted or names():
        started = time.monotonic()
        is_good, said = tried(name)
        bad += not is_good
        print(f"{name:<24} {time.monotonic() - started:4.0f} s  {said}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
