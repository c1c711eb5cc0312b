"""The region's secrets, which definitions name and never hold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from regions.faults import Fault, Faults
from regions.settings import PREFIX

SECRET: Final = f"{PREFIX}SECRET__"


def read_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """What ``{secret.NAME}`` stands for: ``NEARFETCH__SECRET__NAME``, or the file that ``…__NAME_FILE`` names."""
    found: dict[str, str] = {}
    faults: list[Fault] = []
    for variable, value in environ.items():
        name = variable.removeprefix(SECRET)
        if name == variable:
            continue
        if not name.endswith("_FILE"):
            found[name] = value
            continue
        try:
            found[name.removesuffix("_FILE")] = Path(value).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            message = f"expected a readable file, found {type(error).__name__} at {value}"
            faults.append(Fault("environment", None, variable, message))
    if faults:
        raise Faults(faults)
    return found
