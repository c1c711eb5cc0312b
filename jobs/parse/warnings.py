"""The warnings of a result: what was strange about a task's pages."""

from typing import Final


class Warnings:
    """What was strange about a task's pages: at most ten lines, the same kind of thing counted in one."""

    LINES_MAX: Final = 10

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], str] = {}
        self._count: dict[tuple[str, str], int] = {}

    def add(self, kind: tuple[str, str], text: str) -> None:
        """One thing; ``kind`` says which ones are the same."""
        self._first.setdefault(kind, text)
        self._count[kind] = self._count.get(kind, 0) + 1

    def texts(self) -> list[str]:
        """The lines, first things first."""
        lines = [
            text if self._count[kind] == 1 else f"{text} ({self._count[kind]} times)"
            for kind, text in self._first.items()
        ]
        if len(lines) > self.LINES_MAX:
            left = len(lines) - self.LINES_MAX + 1
            lines[self.LINES_MAX - 1 :] = [f"{left} more kinds of warnings"]
        return lines
