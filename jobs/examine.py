"""Everything that is wrong with a source's files, also what only a worker can tell: XPaths, and whether ID.py loads."""

from pathlib import Path

from jobs import definition, xpaths
from jobs.source import Source, code, compiler
from regions.faults import Fault, Faults


def faults(path: Path) -> list[Fault]:
    """What is wrong with ``ID.toml`` and the ``ID.py`` beside it, by their lines; runs the latter's top level."""
    try:
        read, found = definition.examine(path)
    except Faults as raised:
        return raised.faults
    try:
        if found:
            found += xpaths.faults(read, compiler(read))
            code(read)
        else:
            Source(read)
    except Faults as raised:
        found += raised.faults
    return sorted(found, key=lambda fault: (fault.file != path.name, fault.line or 0))
