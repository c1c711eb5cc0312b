"""Finds all faults in a source's files, including bad XPaths, and an ID.py that fails to load."""

from pathlib import Path

from jobs.definition.read import examine
from jobs.parse import xpath_faults
from jobs.parse.source import Source, code, compiler
from regions.faults import Fault, Faults


def faults(path: Path) -> list[Fault]:
    """The faults of ``ID.toml`` and the ``ID.py`` beside it, in the order of their lines. Runs the top level of ID.py."""
    try:
        read, found = examine(path)
    except Faults as raised:
        return raised.faults
    try:
        if found:
            found += xpath_faults.faults(read, compiler(read))
            code(read)
        else:
            Source(read)
    except Faults as raised:
        found += raised.faults
    return sorted(found, key=lambda fault: (fault.file != path.name, fault.line or 0))
