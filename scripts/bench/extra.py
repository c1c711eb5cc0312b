"""Figures of our stack alone, each with settings of its own: what a row of them found, for people and for programs."""

from typing import Any

from msgspec import Struct


class Extra(Struct, frozen=True):
    """``lines`` for people, ``figures`` for programs: names with their units."""

    title: str
    lines: list[str]
    figures: dict[str, Any]
