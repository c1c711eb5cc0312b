"""In which order a body's charset is found out."""

import codecs
import random

import pytest
from babel import Locale

from jobs.charset import declared_in, decode
from jobs.errors import DecodeFailed

GERMAN = "Größe: 5 €, süß und schön, für alle Fälle"
JAPANESE = "これは日本語のページです。ポータルサイトのニュースを毎日お届けします。"
CHINESE = "这是一个中文网页、我们在这里为大家提供最新的新闻和信息、不是吗。你可以看到很多有用的内容。"
KOREAN = "이것은 한국어 웹페이지입니다. 매일 새로운 소식을 전해 드립니다."


@pytest.mark.parametrize(
    ("body", "header", "override", "text"),
    [
        (b"plain", "", "", "plain"),
        (GERMAN.encode(), "", "", GERMAN),
        (GERMAN.encode(), "text/html; charset=windows-1252", "", GERMAN),
        (GERMAN.encode("cp1252"), "text/html; charset=iso-8859-1", "", GERMAN),
        (codecs.BOM_UTF8 + GERMAN.encode(), "text/html; charset=windows-1252", "", GERMAN),
        (codecs.BOM_UTF16_LE + GERMAN.encode("utf-16-le"), "", "", GERMAN),
        (codecs.BOM_UTF16_BE + GERMAN.encode("utf-16-be"), "", "", GERMAN),
        (GERMAN.encode("utf-16-le"), "text/plain; charset=utf-16le", "", GERMAN),
        ("① ㈱ 髙".encode("cp932"), "text/html; charset=Shift_JIS", "", "① ㈱ 髙"),
        ("镕 €".encode("gb18030"), "text/html; charset=gb2312", "", "镕 €"),
        ("똠방각하".encode("cp949"), "text/html; charset=euc-kr", "", "똠방각하"),
        (JAPANESE.encode("euc_jp"), "", "euc-jp", JAPANESE),
        (JAPANESE.encode("iso2022_jp"), "text/html; charset=iso-2022-jp", "", JAPANESE),
        (b"\x93quoted\x94 \x81", "text/html; charset=windows-1252", "", "“quoted” \x81"),
    ],
)
def test_text(body, header, override, text):
    decoded = decode(body, header, override)
    assert (decoded.text, decoded.utf8, decoded.warning) == (text, text.encode(), "")


@pytest.mark.parametrize(
    ("body", "header", "text"),
    [
        (GERMAN.encode("cp1252"), 'text/html; charset="utf-8"', GERMAN),
        (b"<meta charset=utf-8>" + GERMAN.encode("cp1252"), "", "<meta charset=utf-8>" + GERMAN),
        (JAPANESE.encode("euc_jp"), "", JAPANESE),
        (JAPANESE.encode("cp932"), "", JAPANESE),
        (CHINESE.encode("gb18030"), "", CHINESE),
        (KOREAN.encode("cp949"), "", KOREAN),
        (b"caf\xe9", "text/html; charset=nonsense", "café"),
    ],
)
def test_what_was_not_said_truly_is_read_with_a_warning(body, header, text):
    decoded = decode(body, header)
    assert decoded.text == text
    assert "it was read as" in decoded.warning


def names(language: str, charset: str, seed: int) -> tuple[str, bytes]:
    """A page of sixty names of countries, languages, months and days, as the charset holds them."""
    tables = Locale.parse(language)
    words = [*tables.territories.values(), *tables.languages.values(), *tables.months["format"]["wide"].values()]
    body = f"<p>{' '.join(random.Random(seed).choices(words, k=60))}</p>".encode(charset, "ignore")
    return body.decode(charset), body


def outcome(text: str, body: bytes, header: str) -> str:
    try:
        return "right" if decode(body, header).text == text else "rubbish"
    except DecodeFailed:
        return "decode"


WESTERN = "af ca da de en es et eu fi fo fr ga gl is it nb nl pt sq sv".split()  # noqa: SIM905


@pytest.mark.parametrize("header", ["", "text/html; charset=ISO-8859-1", "text/html; charset=utf-8"])
@pytest.mark.parametrize("language", WESTERN)
def test_western_languages_are_never_taken_for_others(language, header):
    for seed in range(10):
        assert outcome(*names(language, "cp1252", seed), header) == "right"


@pytest.mark.parametrize("header", ["", "text/html; charset=ISO-8859-1", "text/html; charset=utf-8"])
@pytest.mark.parametrize(
    ("language", "charset", "expected"),
    [
        ("ja", "cp932", "right"), ("ja", "euc_jp", "right"), ("ja", "iso2022_jp", "right"), ("ko", "cp949", "right"),
        ("ru", "cp1251", "right"), ("ru", "koi8_r", "right"), ("uk", "cp1251", "right"), ("bg", "cp1251", "right"),
        ("zh", "gb18030", "decode"), ("ru", "iso8859_5", "decode"), ("el", "cp1253", "decode"),
        ("he", "cp1255", "decode"), ("ar", "cp1256", "decode"), ("th", "cp874", "decode"),
    ],
)  # fmt: skip
def test_other_scripts_that_are_declared_wrongly_come_out_right_or_not_at_all(language, charset, expected, header):
    """Names are no prose: a detector that goes by the commonest characters (Chinese) is not sure of them."""
    for seed in range(10):
        assert outcome(*names(language, charset, seed), header) == expected


def test_utf8_with_a_bad_byte_is_no_windows_1252_whatever_is_declared():
    body = GERMAN.encode() * 1_000 + b"\xff"
    decoded = decode(body, "text/html; charset=iso-8859-1")
    assert decoded.text == GERMAN * 1_000 + "\ufffd"
    assert "1 bad" in decoded.warning


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (b"Z\xc3\xbcrich, caf\xc3\xa9, " * 6 + b"\x92", ""),
        (b"Z\xc3\xbcrich, caf\xc3\xa9, " * 6 + b"\x92", "text/html; charset=iso-8859-1"),
        (b"Z\xc3\xbcrich, caf\xc3\xa9, na\xc3\xafve \x92", "text/html; charset=utf-8"),
        (b"<meta charset=utf-8>Z\xc3\xbcrich, caf\xc3\xa9, na\xc3\xafve \x92", ""),
    ],
)
def test_a_short_page_of_utf8_with_a_bad_byte_is_utf8(body, header):
    """Sixty umlauts and one bad byte were taken for Korean."""
    decoded = decode(body, header)
    assert decoded.text == body.decode("utf-8", "replace")
    assert decoded.warning == "the page is UTF-8 but for 1 bad sequences"


@pytest.mark.parametrize(
    ("label", "codec", "text"),
    [
        ("IBM855", "cp855", "Столица"), ("cp852", "cp852", "Příliš žluťoučký"), ("cp437", "cp437", "Größe"),
        ("johab", "johab", "서울은"),
    ],
)  # fmt: skip
def test_charsets_of_old_systems_are_read_where_they_are_named(label, codec, text):
    """By the page, the header or the definition; WHATWG knows none of them."""
    body = f'<?xml version="1.0" encoding="{label}"?><a>{text}</a>'.encode(codec)
    for header, override in (("", ""), (f"text/xml; charset={label}", ""), ("", label)):
        assert decode(body, header, override).text.endswith(f"<a>{text}</a>")


def test_a_row_of_umlauts_is_western():
    body = "Alle: ÄÖÜäöüß".encode("cp1252")
    assert decode(body, "text/html; charset=iso-8859-1").text == "Alle: ÄÖÜäöüß"


def test_bytes_that_are_utf8_already_are_not_copied():
    body = GERMAN.encode()
    assert decode(body).utf8 is body


def test_few_bad_sequences_are_warned_of():
    body = GERMAN.encode() * 1_000 + b"\xff"
    decoded = decode(body)
    assert decoded.text.endswith("\ufffd")
    assert "1 bad" in decoded.warning


@pytest.mark.parametrize("body", [b"\x81\x8d\xff\xfe\x9d" * 20, b"\x80\x81\x82" + b"\xc3" * 3])
def test_what_is_no_text(body):
    with pytest.raises(DecodeFailed):
        decode(body)


def test_override_that_does_not_fit():
    with pytest.raises(DecodeFailed, match="utf-8"):
        decode(b"\xff", "", "utf-8")


@pytest.mark.parametrize(
    ("body", "label"),
    [
        (b'<html><meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS">', "shift_jis"),
        (b"<meta charset = 'koi8-r'>", "koi8-r"),
        (b'<?xml version="1.0" encoding="EUC-JP"?><a/>', "euc-jp"),
        (b"<!-- <meta charset=big5> --><meta charset=gbk>", "gbk"),
        (b"<!-- <meta charset=big5>", ""),
        (b"<meta charset=utf-16>", "utf-8"),
        (b" " * 5_000 + b"<meta charset=gbk>", "gbk"),
        (b"<p>charset=gbk</p>", ""),
    ],
)
def test_what_a_document_says_of_itself(body, label):
    assert declared_in(body) == label
