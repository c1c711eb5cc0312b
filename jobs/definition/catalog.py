"""The catalog of sources: every definition of some folders, read again when its file changes.

A file that is no valid definition becomes an entry with faults. It does not affect the others.
"""

import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from jobs.definition.ask import Ask
from jobs.definition.model import Definition
from jobs.definition.read import read
from regions import logs, names, toml
from regions.faults import Fault, Faults, nearest
from regions.secret import VARIABLE, line_for
from regions.settings import Region

FORMER_MAX: Final = 8  # earlier definitions of a source, by which tasks may have been accepted

Stamp = tuple[str, int, int, int, int]  # changes with the file: path, inode, size, times of the file and of its ID.py

NO_REGIONS: Final[Mapping[str, Region]] = {}

log = logs.get("catalog")


class Entry(Struct, frozen=True):
    """One source: its definition, or the faults of its file. ``region`` is where it runs."""

    id: str
    path: Path
    definition: Definition | None
    faults: list[Fault]
    region: str


class Catalog:
    """Definitions by id. Of two files with one id, the one in the later folder counts.

    ``regions`` are those whose settings the process knows. A source that needs something that its region lacks is at fault.
    """

    def __init__(self, folders: Sequence[Path], first_region: str, regions: Mapping[str, Region] = NO_REGIONS) -> None:
        self._folders = list(folders)
        self._first_region, self._regions = first_region, regions
        self._entries: dict[str, Entry] = {}
        self._former: dict[str, list[Definition]] = {}  # earlier valid definitions, the latest last
        self._stamps: dict[str, Stamp] = {}
        self._is_blind = False  # the folders could not be listed the last time
        self._lock = threading.Lock()

    def refresh(self) -> bool:
        """Checks all files (one stat each), and reads those that changed. Returns whether any did. Never raises.

        While a folder can't be listed (no file descriptor is free), its sources stay as they are.
        """
        with self._lock:
            try:
                found = self._look()
            except OSError as error:
                if not self._is_blind:
                    log.error("the sources can't be looked at", error=str(error))
                self._is_blind = True
                return False
            self._is_blind = False
            changed = [source for source, stamp in found.items() if self._stamps.get(source) != stamp]
            gone = [source for source in self._entries if source not in found]
            if not changed and not gone:
                return False
            for source in [*changed, *gone]:
                known = self._entries.get(source)
                if known is not None and known.definition is not None:
                    self._former[source] = [*self._former.get(source, []), known.definition][-FORMER_MAX:]
            entries = {source: entry for source, entry in self._entries.items() if source in found}
            for source in changed:
                entries[source] = self._read(source, Path(found[source][0]))
            self._entries = {source: entries[source] for source in sorted(entries)}
            self._stamps = found
            return True

    def get(self, source: str) -> Entry | None:
        """A source by its id."""
        return self._entries.get(source)

    def former(self, source: str, definition_hash: str) -> Definition | None:
        """An earlier definition with this hash, among the last few. Those with an ID.py do not count, since their code is gone."""
        found = (one for one in self._former.get(source, ()) if one.hash == definition_hash and not one.code)
        return next(found, None)

    def entries(self) -> list[Entry]:
        """All sources, by id."""
        return list(self._entries.values())

    def _look(self) -> dict[str, Stamp]:
        found: dict[str, Stamp] = {}
        for folder in self._folders:
            try:
                with os.scandir(folder) as entries:  # glob would hide the error
                    files = {entry.name: entry for entry in entries}
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue  # a missing folder holds nothing
            for name in sorted(files):
                source, _, kind = name.rpartition(".")
                stamp = _stamp(files[name], files.get(f"{source}.py")) if source and kind == "toml" else None
                if stamp is not None:
                    found[source] = stamp
        return found

    def _read(self, source: str, path: Path) -> Entry:
        try:
            definition = read(path)
            region = definition.region or self._first_region
            strange = wrong_in(self._regions[region], definition) if region in self._regions else []
        except Faults as faults:
            return Entry(source, path, None, faults.faults, _region_in(path) or self._first_region)
        except Exception as error:  # noqa: BLE001 - one file must not keep the others from being read
            fault = Fault(path.name, None, "", f"expected a definition, found {type(error).__name__}: {error}")
            return Entry(source, path, None, [fault], self._first_region)
        return Entry(source, path, None if strange else definition, strange, region)


def wrong_in(region: Region, definition: Definition) -> list[Fault]:
    """Faults of a source that needs something its region lacks: an egress, a secret, any_host. Each says how to mend it."""
    faults = []

    def fault(key: tuple[str, ...], message: str) -> None:
        text = definition.path.read_text(encoding="utf-8")
        faults.append(Fault(definition.path.name, toml.line_of(text, key), ".".join(key), message))

    asks: dict[tuple[str, ...], Ask] = {("request",): definition.ask}
    if definition.before is not None:
        asks = {("before", "request"): definition.before.ask, **asks}
    for name, key in {asked.egress: (*key, "egress") for key, asked in asks.items()}.items():
        if name not in region.egress:
            fault(key, f'expected an egress of region {region.name}, found "{name}"{nearest(name, region.egress)}')
    for name, key in {name: key for key, asked in asks.items() for name in asked.secrets()}.items():
        secret = region.secrets.get(name)
        if secret is None or not secret.serves(definition.id):
            mended = line_for(name, secret, definition.id)
            fault(key, f"expected a secret of region {region.name} for this source, found {name}; {mended} in its file")
    if definition.any_host and not region.any_host:
        fault(("any_host",), f"expected hosts, or any_host = true in the file of region {region.name}, found neither")
    return faults


def lacking(region: Region, definition: Definition) -> str:
    """What a region lacks to run a source of another one, for a process that has the region's secrets; "" for nothing.

    It never shows a secret's value.
    """
    faults = [fault.message for fault in wrong_in(region, definition)]
    asks = [definition.ask, *([definition.before.ask] if definition.before is not None else [])]
    for name in sorted({name for asked in asks for name in asked.secrets()}):
        secret = region.secrets.get(name)
        if secret is not None and secret.serves(definition.id) and not secret.value:
            faults.append(f"expected the value of the secret {name} in {VARIABLE}{name} of its workers, found none")
    return "; ".join(faults)


def _region_in(path: Path) -> str:
    """The region that a faulty file names, which then shows its faults; "" if there is none."""
    try:
        region = toml.read(path).get("region")
    except Faults:
        return ""
    return region if isinstance(region, str) and re.fullmatch(names.REGION_PATTERN, region) else ""


def _stamp(file: os.DirEntry[str], code: os.DirEntry[str] | None) -> Stamp | None:
    """None if the file is gone. ``code``: its ID.py, if it has one."""
    try:
        stat = file.stat()
    except OSError:
        return None
    try:
        changed = code.stat().st_mtime_ns if code is not None else 0
    except OSError:
        changed = 0
    return file.path, stat.st_ino, stat.st_size, stat.st_mtime_ns, changed
