"""Collects the warnings of a result."""

from typing import Final


class Warnings:
    """The warnings of a result: at most ten lines. Warnings of the same kind share a line with their count."""

    LINES_MAX: Final = 10

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], str] = {}
        self._count: dict[tuple[str, str], int] = {}

    def add(self, kind: tuple[str, str], text: str) -> None:
        """Adds a warning. Those with the same ``kind`` are counted in one line."""
        self._first.setdefault(kind, text)
        self._count[kind] = self._count.get(kind, 0) + 1

    def texts(self) -> list[str]:
        """The lines, in the order of the first warning of each kind."""
        lines = [
            text if self._count[kind] == 1 else f"{text} ({self._count[kind]} times)"
            for kind, text in self._first.items()
        ]
        if len(lines) > self.LINES_MAX:
            left = len(lines) - self.LINES_MAX + 1
            lines[self.LINES_MAX - 1 :] = [f"{left} more kinds of warnings"]
        return lines
