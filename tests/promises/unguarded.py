"""Takes the guard of each promise out, on a copy, and sees its test fail.

    python -m tests.promises.unguarded            all of them
    python -m tests.promises.unguarded waiters …  some

``tests/promises/NAME.patch`` takes out what ``tests/promises/test_NAME.py`` stands on. A test that passes without its
guard can't fail, and is worth nothing. Ends with 0 when every test failed as it should, else with 1.
"""

import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path("tests/promises")


def names() -> list[str]:
    """Every promise that has a patch."""
    return sorted(file.stem for file in (ROOT / HERE).glob("*.patch"))


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


def outcomes(folder: Path, name: str) -> tuple[list[str], list[str], list[str]]:
    """(failed, broken, passed) tests of a promise; broken is what did not come to its own assertions."""
    report = folder / "report.xml"
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", str(HERE / f"test_{name}.py")]
    subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, check=False)
    failed, broken, passed = [], [], []
    for case in ET.parse(report).iter("testcase") if report.exists() else ():
        kinds = {child.tag for child in case}
        place = failed if "failure" in kinds else broken if "error" in kinds else passed
        place.append(case.get("name", ""))
    return failed, broken, passed


def main(wanted: list[str]) -> int:
    """Tries these, or all."""
    unknown = sorted(set(wanted) - set(names()))
    if unknown:
        print(f"no patch: {', '.join(unknown)}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    bad = 0
    for name in wanted or names():
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="nearfetch-unguarded-") as made:
            folder = Path(made)
            copy(folder)
            fault = apply(folder, name)
            failed, broken, passed = ([], [], []) if fault else outcomes(folder, name)
        bad += not failed
        said = (
            f"does not apply: {fault}" if fault else f"{len(passed)} passed" + (f", broken: {broken}" if broken else "")
        )
        said = f"failed as it should: {', '.join(failed)}" if failed else f"PASSED WITHOUT ITS GUARD ({said})"
        print(f"{name:<20} {time.monotonic() - started:4.0f} s  {said}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
