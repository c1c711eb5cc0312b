"""What the hub remembers of takeovers: which regions lose their tasks to standbys, and which task was asked elsewhere and why.

    nf:takeover        REGION: a Record that the gateways decided on (web.flow.takeover)
                       drained:REGION: a Record that an operator made (nearfetch region drain)
    nf:req:REQUEST     m:TASK: a Moved

A record that can't be read does not count, so that no region loses its tasks by it.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from jobs.contract import rfc3339

DRAINED: Final = "drained"  # the reason of an operator's record, and what its field begins with


class Record(Struct, frozen=True, kw_only=True):
    """Why a region loses its tasks. ``why``: down, consumes nothing, late or drained; times are hub ms.

    ``well_ms``: since when nothing is wrong with it any more; 0 while something is.
    """

    why: str
    detail: str = ""
    since_ms: int
    well_ms: int = 0

    @property
    def reason(self) -> str:
        """The reason for people."""
        return f"{self.why}: {self.detail}" if self.detail else self.why


class Moved(Struct, frozen=True, kw_only=True):
    """That a task was asked of another region than its source's. ``at_ms``: 0 for the time of its accept.

    ``asked``: all regions that were asked.
    """

    home: str
    to: str
    why: str
    at_ms: int = 0
    asked: tuple[str, ...] = ()


_record: Final = msgspec.json.Decoder(Record)
_moved: Final = msgspec.json.Decoder(Moved)
encode: Final = msgspec.json.Encoder().encode


def drained_field(region: str) -> str:
    """The field of an operator's record."""
    return f"{DRAINED}:{region}"


def records(fields: Mapping[bytes, bytes]) -> tuple[dict[str, Record], dict[str, Record]]:
    """Returns (the gateways' records, the operators' records), by region."""
    decided: dict[str, Record] = {}
    drained: dict[str, Record] = {}
    for field, text in fields.items():
        kind, _, region = field.decode(errors="replace").rpartition(":")
        try:
            (drained if kind == DRAINED else decided)[region] = _record.decode(text)
        except (ValueError, RecursionError):
            continue
    return decided, drained


def moved(text: bytes | None) -> Moved | None:
    """The note in a task's ledger; None for a task that only its own region was asked for."""
    try:
        return None if text is None else _moved.decode(text)
    except (ValueError, RecursionError):
        return None


def view(record: Record | None) -> dict[str, object] | None:
    """A record as ``/v1/regions`` shows it."""
    if record is None:
        return None
    well = rfc3339(record.well_ms) if record.well_ms else None
    return {"why": record.why, "detail": record.detail, "since": rfc3339(record.since_ms), "well_since": well}
