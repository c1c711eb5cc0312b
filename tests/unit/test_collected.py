"""What worker processes are forked from has read the tests, but for those that a worker has to tell of."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests import collected

SKIPPED = "import pytest\npytest.skip('not here', allow_module_level=True)\ndef test(): pass\n"
SAY = "import sys; from tests import collected; print(*sorted(one for one in sys.modules if one.startswith('tests.test_')))"


@pytest.mark.parametrize(
    ("files", "read"),
    [
        ({"fine": "def test(): pass", "skipped": SKIPPED}, "tests.test_fine"),
        ({"fine": "def test(): pass", "faulty": "import of_nobody"}, ""),
    ],
    ids=["a file that skips itself is not read", "nothing is read where a file can't be"],
)
def test_what_was_not_imported_to_its_end_is_forgotten(tmp_path, files, read):
    folder = tmp_path / "tests"
    folder.mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    (folder / "__init__.py").touch()
    shutil.copy(collected.__file__, folder)
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    environ = {**os.environ, collected.WORDS: json.dumps(["tests"])}
    said = subprocess.run(
        [sys.executable, "-c", SAY], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == read, said.stderr
