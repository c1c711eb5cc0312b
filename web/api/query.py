"""Reads the query of a call, and its Prefer header. All faults of a query are reported at once."""

import re
from collections.abc import Collection
from typing import Final

from regions.faults import nearest
from web.http.exchange import Exchange
from web.http.problems import Problem, pointer

CURSOR: Final = re.compile(r"(\d{1,20})-(\d{1,20})", re.ASCII)
CURSOR_PART_MAX: Final = 2**64 - 2
# As programs write numbers, too: 288783.4017577385, 1e-05.
SECONDS: Final = re.compile(r"(\d{1,15}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,3})?", re.ASCII)
NUMBER: Final = re.compile(r"\d{1,9}", re.ASCII)
SHOWN_MAX: Final = 60  # characters of what was found
NAMES_MAX: Final = 32  # faults that one answer lists
# RFC 7240: preferences are separated by commas, and parameters of a preference by semicolons.
PREFERENCE: Final = re.compile(r'\s*wait\s*=\s*(?:"([^"]*)"|([^\s",;]+))\s*(?:;|$)', re.IGNORECASE)


class Query:
    """The members of a query. Each method takes one; ``check`` raises ``Problem`` with everything that was wrong."""

    def __init__(self, exchange: Exchange, known: Collection[str] | None) -> None:
        """``known``: the names that the call takes; None if params of a source stand beside them.

        Raises ``Problem`` (400) if the query can't be read.
        """
        try:
            self.pairs = exchange.query()
        except ValueError as error:
            raise Problem("bad-request", f"query: {_readable(error)}") from error
        self._values: dict[str, str] = {}
        self.faults: list[tuple[str, str]] = []
        for name, text in self.pairs:
            if known is not None and name not in known:
                self._fault(
                    name,
                    f'unknown member "{name[:SHOWN_MAX]}"{nearest(name, known) if known else "; this call takes none"}',
                )
            elif name in self._values and known is not None:
                self._fault(name, "expected it once, found it twice")
            self._values.setdefault(name, text)

    def text(self, name: str) -> str | None:
        """A member as it came; None if it was not sent."""
        return self._values.get(name)

    def seconds(self, name: str, default: float, most: float) -> float:
        """A wait in seconds, cut to ``most``."""
        text = self._values.get(name)
        found = default if text is None else seconds(text)
        if found is None:
            self._fault(name, f"expected a number of seconds from 0, found {_shown(text)}")
            return default
        return min(found, most)

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number from 1 to ``most``."""
        text = self._values.get(name)
        if text is None:
            return default
        found = int(text) if NUMBER.fullmatch(text) else 0
        if not 1 <= found <= most:
            self._fault(name, f"expected a whole number from 1 to {most}, found {_shown(text)}")
        return found

    def cursor(self, name: str) -> str | None:
        """A cursor of a request's results; None if it was not sent."""
        text = self._values.get(name)
        if text is not None and not is_cursor(text):
            self._fault(name, f"expected a cursor like 1732421640123-0, found {_shown(text)}")
        return text

    def fault(self, name: str, expected: str) -> None:
        """Notes that a member is not what was expected."""
        self._fault(name, f"expected {expected}, found {_shown(self._values.get(name))}")

    def check(self) -> None:
        """Raises ``Problem`` (400) with all faults, if there are any."""
        if self.faults:
            raise bad(self.faults)

    def _fault(self, name: str, detail: str) -> None:
        self.faults.append((pointer(name), detail))


def bad(faults: list[tuple[str, str]]) -> Problem:
    """A problem (400) with all faults of a query: (pointer, detail)."""
    where, detail = faults[0]
    said = (
        f"{where[1:]}: {detail}".removeprefix(": ")
        if len(faults) == 1
        else f"{len(faults)} things are wrong with the query; see errors"
    )
    return Problem("bad-request", said, errors=faults[:NAMES_MAX])


def is_cursor(text: str) -> bool:
    """Whether a text is a cursor of a request's results."""
    found = CURSOR.fullmatch(text)
    return found is not None and all(int(part) <= CURSOR_PART_MAX for part in found.groups())


def seconds(text: str) -> float | None:
    """A number of seconds from 0; None if it is none."""
    return float(text) if SECONDS.fullmatch(text) else None


def preferred_wait(header: str) -> float:
    """The seconds of a Prefer header's ``wait`` (RFC 7240), 0 without one. A preference that can't be read is ignored."""
    for preference in header.split(","):
        found = PREFERENCE.match(preference)
        if found is not None:
            return seconds((found.group(1) or found.group(2) or "").strip()) or 0.0  # the first one counts
    return 0.0


def _shown(text: str | None) -> str:
    return repr((text or "")[:SHOWN_MAX])


def _readable(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"expected UTF-8, found byte 0x{error.object[error.start]:02x}"
    return "expected 200 members at most, found more"
