"""Texts of many languages in each charset, short and long, under a true word, a false one and none: none is wrong alone.

The words are CLDR's names of currencies and scripts, which jobs/text/letters.tsv is not made from.
"""

import random
from functools import cache

import pytest
from babel import Locale

from jobs.errors import DecodeFailed
from jobs.text.charset import decode

WESTERN = "ca da de es fi fo fr ga is it nb nl pt sq sv".split()  # noqa: SIM905
CHARSETS = {
    "ru": "windows-1251 koi8-r iso-8859-5 ibm866 x-mac-cyrillic utf-8", "uk": "windows-1251 koi8-u x-mac-cyrillic utf-8",
    "bg": "windows-1251", "sr": "windows-1251", "el": "windows-1253 iso-8859-7 utf-8", "he": "windows-1255 utf-8",
    "ar": "windows-1256 iso-8859-6 utf-8", "fa": "windows-1256", "th": "windows-874 utf-8",
    "pl": "windows-1250 iso-8859-2 utf-8", "cs": "windows-1250 iso-8859-2 utf-8", "hu": "windows-1250", "hr": "windows-1250",
    "sk": "windows-1250", "tr": "windows-1254 utf-8", "lt": "windows-1257", "lv": "windows-1257", "et": "windows-1257",
    "zh": "gb18030 utf-8", "zh_Hant": "big5 utf-8", "ja": "shift_jis euc-jp iso-2022-jp utf-8", "ko": "euc-kr utf-8",
    **dict.fromkeys(WESTERN, "windows-1252 utf-8"),
}  # fmt: skip
CODECS = {
    "windows-874": "cp874", "x-mac-cyrillic": "mac-cyrillic", "ibm866": "cp866", "shift_jis": "cp932", "euc-kr": "cp949",
    "iso-2022-jp": "iso2022_jp", "euc-jp": "euc_jp",
}  # fmt: skip


@cache
def words(language: str) -> list[str]:
    locale = Locale.parse(language)
    return [str(name) for name in (*locale.currencies.values(), *locale.scripts.values())]


def texts(count: int, seed: str) -> list[tuple[str, str, str, bytes]]:
    """Language, charset, text and bytes, of ``count`` names each."""
    made = []
    for language, charsets in CHARSETS.items():
        for charset in charsets.split():
            codec = CODECS.get(charset, charset)
            chosen = random.Random(f"{seed} {language} {charset}").choices(words(language), k=count)
            body = " ".join(chosen).encode(codec, "ignore")
            text = body.decode(codec)
            if not text.isascii():
                made.append((language, charset, text, body))
    return made


def header(charset: str) -> str:
    return f"text/html; charset={charset}" if charset else "text/html"


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_a_correct_declaration_counts(count):
    """And hardly ever gives a warning: only if another charset reads as well."""
    made, warned = texts(count, "true"), 0
    for language, charset, text, body in made:
        decoded = decode(body, header(charset))
        assert decoded.text == text, (language, charset, decoded.warning)
        warned += bool(decoded.warning)
    assert warned < len(made) / 10


@pytest.mark.parametrize("count", [1, 2, 5, 40])
@pytest.mark.parametrize("said", ["", "iso-8859-1", "utf-8"])
def test_no_wrong_reading_comes_without_a_warning(said, count):
    wrong = failed = 0
    made = [one for one in texts(count, said) if one[1] != ("windows-1252" if said == "iso-8859-1" else said)]
    for language, charset, text, body in made:
        try:
            decoded = decode(body, header(said))
        except DecodeFailed:
            failed += 1
            continue
        assert decoded.text == text or decoded.warning, (language, charset, text, decoded.text)
        wrong += decoded.text != text
    assert failed < len(made) / 20
    assert wrong < len(made) / 4
