"""Everything that is wrong with a source's files, also what only a worker can tell: XPaths, and whether ID.py loads.

As a process it does so for ``jobs.pool.examiner``, and what an author's code does when it is loaded ends here.
"""

import os
import resource
import sys
from pathlib import Path
from typing import Final

import msgspec

from jobs.definition.read import examine
from jobs.parse import xpath_faults
from jobs.parse.source import Source, code, compiler
from jobs.worker.stop import follow_parent
from regions.faults import Fault, Faults

CPU_SECONDS: Final = 10  # for one source


def faults(path: Path) -> list[Fault]:
    """What is wrong with ``ID.toml`` and the ``ID.py`` beside it, by their lines; runs the latter's top level."""
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


def main() -> int:
    """What ``python -m jobs.pool.examine`` does: a path a line in, as JSON, and for each a line with a list of texts out."""
    follow_parent()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what an ID.py prints when it is loaded is no answer
    for line in sys.stdin.buffer:
        _allow(CPU_SECONDS)
        found = faults(Path(msgspec.json.decode(line, type=str)))
        answers.write(msgspec.json.encode([str(fault) for fault in found]) + b"\n")
        answers.flush()
    return 0


def _allow(seconds: int) -> None:
    """Time from now on; the kernel ends who takes more of it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    sys.exit(main())
