"""Definitions for tests of what is asked for, not of what is fetched."""

from pathlib import Path

DEMO_LIST = """
title  = "A list"
url    = 'https://demo.example/list/{category}{?page}'
region = "fra"
standby = ["nyc"]
[params]
category = {required = true, example = "poetry", pattern = '[a-z_0-9]+'}
page     = {type = "int", default = 1, min = 1, max = 50}
[rows]
css = "li"
[fields]
name  = "b"
price = {css = "i", type = "decimal"}
[limits]
rate = "2/s"
"""

DEMO_PLAIN = """
title = "Nothing to choose"
url   = 'https://plain.example:8443/all'
region = "nyc"
[rows]
css = "li"
[fields]
name = "b"
"""

DEMO_BROKEN = """
title = "Misspelt"
url   = 'https://broken.example/'
region = "sin"
[rows]
ccs = "li"
[fields]
name = "b"
"""


def write(folder: Path) -> Path:
    """Three sources: ``demo.list`` (fra), ``demo.plain`` (nyc) and ``demo.broken`` (sin), which is no source."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("demo.list", DEMO_LIST), ("demo.plain", DEMO_PLAIN), ("demo.broken", DEMO_BROKEN)):
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder
