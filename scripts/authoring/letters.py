"""Makes jobs/text/letters.tsv from CLDR's names: which letters stand beside each other in the languages of old charsets.

python -m scripts.authoring.letters      writes the file; a test fails when it differs from what CLDR's names give
"""

import re
import unicodedata
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Final

from babel import Locale

from jobs.text import bigrams

PATH: Final = Path(__file__).parents[2] / "jobs" / "text" / "letters.tsv"
LANGUAGES: Final = ["af", "az", "be", "bg", "br", "bs", "ca", "cs", "cy", "da", "de", "el", "en", "eo", "es", "et", "eu", "fa", "fi", "fo", "fr", "fy", "ga", "gd", "gl", "he", "hr", "hu", "is", "it", "kk", "lb", "lt", "lv", "mk", "mt", "nb", "nl", "nn", "pl", "pt", "ro", "ru", "sk", "sl", "sq", "sr", "sr_Latn", "sv", "th", "tr", "uk", "ur", "vi", "ar"]  # fmt: skip
BY_CHARACTER: Final = ("ja", "ko", "zh", "zh_Hant")  # neighbours say little about these; their characters do
SEEN: Final = 4  # times that a letter must occur in a language; rarer ones come from foreign names


def names(language: str) -> list[str]:
    """Names of countries, languages, months, days and cities, as people write them."""
    locale = Locale.parse(language)
    found = [*locale.territories.values(), *locale.languages.values()]
    found += [*locale.months["format"]["wide"].values(), *locale.days["format"]["wide"].values()]
    found += [zone["city"] for zone in locale.time_zones.values() if "city" in zone]
    return [unicodedata.normalize("NFC", str(name)) for name in found if name]


def pairs(language: str) -> list[str]:
    """Pairs of letters of which at least one is beyond ASCII. A blank stands for the beginning or end of a word."""
    words = [
        f" {word} "
        for name in names(language)
        for word in re.findall(r"[^\W\d_]+|[\u0e00-\u0e7f]+", bigrams.lowered(name))
    ]
    seen = Counter(letter for word in words for letter in word if letter > "\x7f")
    known = {letter for letter, count in seen.items() if count >= SEEN}
    found = {one + two for word in words for one, two in pairwise(word)}
    return sorted(two for two in found if not two.isascii() and all(one <= "\x7f" or one in known for one in two))


def characters(language: str) -> list[str]:
    """The characters beyond ASCII, punctuation aside."""
    return sorted({one for name in names(language) for one in name if one > "\u2fff"})


def made() -> str:
    """The file's text: for each language a line with its pairs or characters."""
    lines = [f"{language}\t{''.join(pairs(language))}\n" for language in sorted(LANGUAGES)]
    lines += [f"{language}\t{''.join(characters(language))}\n" for language in BY_CHARACTER]
    return "".join(lines)


if __name__ == "__main__":
    PATH.write_text(made(), encoding="utf-8")
