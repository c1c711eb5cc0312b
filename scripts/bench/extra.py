"""The outcome of a row that measures Nearfetch alone, with settings of its own, for people and for programs."""

from typing import Any

from msgspec import Struct


class Extra(Struct, frozen=True):
    """``lines`` are for people; ``figures`` are for programs, under names with units."""

    title: str
    lines: list[str]
    figures: dict[str, Any]
