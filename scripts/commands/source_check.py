"""``nearfetch source check``: reports all faults of definitions. Also finds the source that a command's argument names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from jobs.definition.catalog import Catalog, Entry, wrong_in
from jobs.definition.model import Definition
from jobs.definition.read import examine as examine_file
from jobs.parse import examine
from regions import toml
from regions.faults import Fault, Faults, nearest
from regions.settings import Settings
from scripts.terminal import counted, say, say_json

SUFFIX: Final = ".toml"


def run(settings: Settings, sources: Sequence[str], *, as_json: bool) -> int:
    """Returns the exit code. Raises click's ``UsageError`` for an unknown source."""
    entries = [find(settings, name) for name in sources] or known(settings).entries()
    found = {entry.id: faults(settings, entry) for entry in entries}
    if as_json:
        listed = [{"source": source, **fault} for source, all_ in found.items() for fault in msgspec.to_builtins(all_)]
        say_json({"sources": len(found), "faults": listed})
    else:
        for all_ in found.values():
            for fault in all_:
                say(str(fault))
        count = sum(map(len, found.values()))
        say(f"{counted(len(found), 'source')}, {counted(count, 'fault') if count else 'nothing wrong'}", err=True)
    return 2 if any(found.values()) else 0


def faults(settings: Settings, entry: Entry) -> list[Fault]:
    """The faults of a source: in its files, in the regions that it names, and what it needs that its region does not give."""
    found = examine.faults(entry.path)
    read = _examined(entry.path)
    if read is not None and entry.region in settings.region:
        for region in read.regions(entry.region):
            found += wrong_in(settings.region[region], read) if region in settings.region else []
    for key, name in regions_of(entry.path):
        if name not in settings.region:
            line = toml.line_of(entry.path.read_text(encoding="utf-8"), (key,))
            message = f'expected a known region, found "{name}"{nearest(name, settings.region)}'
            found.append(Fault(entry.path.name, line, key, message))
    return sorted(found, key=lambda fault: (fault.file != entry.path.name, fault.line or 0))


def regions_of(path: Path) -> list[tuple[str, str]]:
    """The regions that a definition names, each with its key, even if other things in the definition are wrong."""
    read = _examined(path)
    if read is None:
        return []
    own = [("region", read.region)] if read.region else []
    return [*own, *(("standby", name) for name in read.standby)]


def _examined(path: Path) -> Definition | None:
    """A definition as far as it can be read; None when the file is not TOML."""
    try:
        return examine_file(path)[0]
    except Faults:
        return None


def known(settings: Settings) -> Catalog:
    """All sources in the folders."""
    catalog = Catalog(settings.source_folders, settings.first_region)
    catalog.refresh()
    return catalog


def find(settings: Settings, name: str) -> Entry:
    """A source by its id or its file's path. Raises click's ``UsageError``."""
    if name.endswith(SUFFIX) or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise click.UsageError(f"expected a source's file, found none at {name}")
        catalog = Catalog([path.absolute().parent], settings.first_region)
    else:
        catalog = Catalog(settings.source_folders, settings.first_region)
    catalog.refresh()
    entry = catalog.get(Path(name).stem if name.endswith(SUFFIX) else name)
    if entry is None:
        ids = [one.id for one in catalog.entries()]
        raise click.UsageError(f'expected a source, found "{name}"{nearest(name, ids)}')
    return entry
