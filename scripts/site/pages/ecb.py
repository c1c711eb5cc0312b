"""Euro reference rates: one small XML document, its attributes in single quotes. The rates are made up."""

import random
from functools import cache
from typing import Final

from scripts.site.pages.page import Answer, Query

ORIGINS: Final = ("www.ecb.europa.eu",)
PATH: Final = "/stats/eurofxref/eurofxref-daily.xml"
DAY: Final = "2026-11-20"
# Roughly how many of each a euro buys, so that the digits look right.
ABOUT: Final = {
    "USD": 1.1, "JPY": 170, "BGN": 1.95, "CZK": 24, "DKK": 7.5, "GBP": 0.87, "HUF": 390, "PLN": 4.2, "RON": 5.1,
    "SEK": 11, "CHF": 0.93, "ISK": 142, "NOK": 11.7, "TRY": 49, "AUD": 1.78, "BRL": 6.2, "CAD": 1.62, "CNY": 8.2,
    "HKD": 9.0, "IDR": 19000, "ILS": 3.8, "INR": 102, "KRW": 1690, "MXN": 21, "MYR": 4.8, "NZD": 2.0, "PHP": 68,
    "RUB": 91, "SGD": 1.5, "THB": 37, "ZAR": 20,
}  # fmt: skip


def answer(path: str, query: Query) -> Answer | None:  # noqa: ARG001 - every origin answers the same call
    """The daily rates; nothing else is here."""
    return Answer(_rates(), "text/xml") if path == PATH else None


@cache
def _rates() -> bytes:
    draw = random.Random(20261120)
    lines = [
        f"\t\t\t<Cube currency='{code}' rate='{_digits(about * draw.uniform(0.97, 1.03))}'/>"
        for code, about in ABOUT.items()
    ]
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01"'
        ' xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">\n'
        "\t<gesmes:subject>Reference rates</gesmes:subject>\n\t<gesmes:Sender>\n"
        "\t\t<gesmes:name>A sample, not the European Central Bank</gesmes:name>\n\t</gesmes:Sender>\n"
        f"\t<Cube>\n\t\t<Cube time='{DAY}'>\n"
    )
    return (head + "\n".join(lines) + "\n\t\t</Cube>\n\t</Cube>\n</gesmes:Envelope>\n").encode()


def _digits(rate: float) -> str:
    """Five significant digits, as the real ones have."""
    return f"{rate:.5f}" if rate < 1 else f"{rate:.{max(5 - len(str(int(rate))), 0)}f}"
