"""Subdivisions of countries as CSV: 4,600 lines, 130 KB, most of them without quotes. The names are made up."""

import random
from dataclasses import dataclass
from functools import cache
from typing import Final

from scripts.site.pages.page import FIRST, SECOND, Answer, Asked

ORIGINS: Final = ("raw.githubusercontent.com",)
PATH: Final = "/datasets/un-locode/main/data/subdivision-codes.csv"
COUNTRIES: Final = ("AD", "BR", "CI", "DE", "ES", "FR", "IS", "JP", "MX", "NA", "PL", "SI", "TR", "US", "VN", "ZA")
PER_COUNTRY: Final = 290
KINDS: Final = ("Province", "Région", "Municipality", "Parish", "Länder", "Metropolitan department")
ACCENTED: Final = ("Šentjur", "São João", "Ærø", "Đồng Nai", "Łódź", "Île-de-Lune")


@dataclass(frozen=True)
class Subdivision:
    """``type`` is "" for a few."""

    country: str
    code: str
    name: str
    type: str


def answer(asked: Asked) -> Answer | None:
    """The file; nothing else is here."""
    return Answer(_file(), "text/plain; charset=utf-8") if asked.path == PATH else None


@cache
def subdivisions() -> list[Subdivision]:
    """All of them, in the order of the file; as in the real one, a few stand in it twice."""
    draw = random.Random(2024)
    found = [_subdivision(draw, country, number) for country in COUNTRIES for number in range(PER_COUNTRY)]
    return [*found, found[7]]


def _subdivision(draw: random.Random, country: str, number: int) -> Subdivision:
    name = draw.choice(ACCENTED) if number % 9 == 0 else f"{draw.choice(FIRST)} {draw.choice(SECOND)}".title()
    if number % 41 == 3:
        name = f'{name}, "The Old"'
    code = f"{number:02d}" if country < "M" else f"{draw.choice('ABC')}{number}"
    return Subdivision(country, code, name, "" if number % 97 == 5 else draw.choice(KINDS))


@cache
def _file() -> bytes:
    lines = [",".join(map(_cell, (one.country, one.code, one.name, one.type))) for one in subdivisions()]
    return ("\n".join(["SUCountry,SUCode,SUName,SUType", *lines]) + "\n").encode()


def _cell(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"' if "," in text or '"' in text else text
