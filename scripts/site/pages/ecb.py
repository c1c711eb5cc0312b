"""Euro reference rates as XML: of a day, its attributes in single quotes, and of 90 days on one line. All made up."""

import random
from collections.abc import Mapping
from datetime import date, timedelta
from functools import cache
from typing import Final

from scripts.site.pages.page import Answer, Asked

ORIGINS: Final = ("www.ecb.europa.eu",)
PATH: Final = "/stats/eurofxref/eurofxref-daily.xml"
HISTORY: Final = "/stats/eurofxref/eurofxref-hist-90d.xml"
DAY: Final = "2026-11-20"
CALENDAR_DAYS: Final = 90
# Roughly how many of each a euro buys, so that the digits look right.
ABOUT: Final = {
    "USD": 1.1, "JPY": 170, "BGN": 1.95, "CZK": 24, "DKK": 7.5, "GBP": 0.87, "HUF": 390, "PLN": 4.2, "RON": 5.1,
    "SEK": 11, "CHF": 0.93, "ISK": 142, "NOK": 11.7, "TRY": 49, "AUD": 1.78, "BRL": 6.2, "CAD": 1.62, "CNY": 8.2,
    "HKD": 9.0, "IDR": 19000, "ILS": 3.8, "INR": 102, "KRW": 1690, "MXN": 21, "MYR": 4.8, "NZD": 2.0, "PHP": 68,
    "RUB": 91, "SGD": 1.5, "THB": 37, "ZAR": 20,
}  # fmt: skip
_HEAD: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>{0}'
    '<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01"'
    ' xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">{0}'
    "{1}<gesmes:subject>Reference rates</gesmes:subject>{0}{1}<gesmes:Sender>{0}"
    "{1}{1}<gesmes:name>A sample, not the European Central Bank</gesmes:name>{0}{1}</gesmes:Sender>{0}"
)


def answer(asked: Asked) -> Answer | None:
    """The daily rates and those of 90 days; nothing else is here."""
    if asked.path == HISTORY:
        return Answer(_history(), "text/xml")
    return Answer(_daily(), "text/xml") if asked.path == PATH else None


def days() -> list[str]:
    """The days of the history, the newest first: rates are set from Monday to Friday."""
    last = date.fromisoformat(DAY)
    found = (last - timedelta(days=back) for back in range(CALENDAR_DAYS))
    return [day.isoformat() for day in found if day.weekday() < 5]


def rates(day: str) -> Mapping[str, str]:
    """How many of each currency a euro buys on a day."""
    draw = random.Random(int(day.replace("-", "")))
    return {code: _digits(about * draw.uniform(0.97, 1.03)) for code, about in ABOUT.items()}


@cache
def _daily() -> bytes:
    lines = [f"\t\t\t<Cube currency='{code}' rate='{rate}'/>" for code, rate in rates(DAY).items()]
    head = _HEAD.format("\n", "\t") + f"\t<Cube>\n\t\t<Cube time='{DAY}'>\n"
    return (head + "\n".join(lines) + "\n\t\t</Cube>\n\t</Cube>\n</gesmes:Envelope>\n").encode()


@cache
def _history() -> bytes:
    cubes = []
    for day in days():
        inner = "".join(f'<Cube currency="{code}" rate="{rate}"/>' for code, rate in rates(day).items())
        cubes.append(f'<Cube time="{day}">{inner}</Cube>')
    noise = '<!-- <Cube time="2026-11-21"><Cube currency="USD" rate="0"/></Cube> -->'
    return (_HEAD.format("", "") + f"<Cube>{noise}{''.join(cubes)}</Cube></gesmes:Envelope>").encode()


def _digits(rate: float) -> str:
    """Five significant digits, as the real ones have."""
    return f"{rate:.5f}" if rate < 1 else f"{rate:.{max(5 - len(str(int(rate))), 0)}f}"
