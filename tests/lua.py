"""Every Lua script of the product."""

import importlib
import re

from regions.script import Script
from regions.settings import ROOT

FOLDERS = ("bridge", "jobs", "regions", "web")
FILES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.lua"))


def scripts() -> dict[str, Script]:
    """By the module and name of each."""
    found = {}
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            for name in re.findall(r"^(\w+): Final = _?(?:Script|load)\(", file.read_text(), re.MULTILINE):
                module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
                found[f"{module}.{name}"] = getattr(importlib.import_module(module), name)
    return found
