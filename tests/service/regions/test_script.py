"""Every Lua script as it is sent: Redis compiles it, and luacheck finds names that nothing defines, or nothing uses.

Redis alone would say so when a line first runs. luacheck is Debian's lua-check, which scripts/test installs where it can; a
Python package would check another grammar than the one of Redis's Lua 5.1.
"""

import re
import shutil
import subprocess

import pytest

from tests import lua

SCRIPTS = lua.scripts()
GLOBALS = ("redis", "cjson", "cmsgpack", "KEYS", "ARGV")
OF_PARTS = (
    "211",
    "231",
    "43",
)  # what a shared file defines and this script leaves unused, or names as its own arguments


def test_redis_compiles_every_script_and_knows_it_by_our_hash(hub_redis):
    assert len(SCRIPTS) > 35
    for script in SCRIPTS.values():
        assert hub_redis.client.script_load(script.text.decode()) == script.sha


@pytest.mark.skipif(shutil.which("luacheck") is None, reason="no luacheck: apt-get install lua-check")
def test_luacheck_finds_nothing(tmp_path):
    files = {name: tmp_path / f"{name}.lua" for name in SCRIPTS if SCRIPTS[name].lua.files}
    for name, file in files.items():
        file.write_text(re.sub(r"^#!.*", "", SCRIPTS[name].lua.text, count=1))
    words = [
        "luacheck",
        "--std",
        "lua51",
        "--globals",
        *GLOBALS,
        "--ignore",
        *OF_PARTS,
        "--no-max-line-length",
        "--no-color",
    ]
    found = subprocess.run([*words, *files.values()], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
