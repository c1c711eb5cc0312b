"""The order in which the charset of a body is found."""

import codecs
import contextlib
import random

import pytest
from babel import Locale

from jobs.errors import DecodeFailed
from jobs.text import prescan
from jobs.text.charset import decode

GERMAN = "Größe: 5 €, süß und schön, für alle Fälle"
JAPANESE = "これは日本語のページです。ポータルサイトのニュースを毎日お届けします。"
CHINESE = "这是一个中文网页、我们在这里为大家提供最新的新闻和信息、不是吗。你可以看到很多有用的内容。"
KOREAN = "이것은 한국어 웹페이지입니다. 매일 새로운 소식을 전해 드립니다."


@pytest.mark.parametrize("faults", [400, 110_000])
def test_a_charset_that_fits_only_the_beginning_is_not_the_one(faults):
    body = "é ".encode() * 400 + "Á ".encode() * faults
    decoded = decode(body, "text/html; charset=big5")
    assert (decoded.encoding, decoded.utf8) == ("utf-8", body)
    assert decoded.warning == "the header says big5, and the bytes may be utf-8 too: it was read as utf-8"


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
        (b"\x93quoted\x94", "text/html; charset=windows-1252", "", "“quoted”"),
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
def test_a_wrongly_declared_charset_is_read_with_a_warning(body, header, text):
    decoded = decode(body, header)
    assert decoded.text == text
    assert "it was read as" in decoded.warning


def names(language: str, charset: str, seed: int) -> tuple[str, bytes]:
    """A page of sixty names of countries, languages, months and days that the charset can encode."""
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
def test_western_languages_are_never_read_as_others(language, header):
    for seed in range(4):  # `python -m tests.differential charsets` has thousands
        assert outcome(*names(language, "cp1252", seed), header) == "right"


@pytest.mark.parametrize("header", ["", "text/html; charset=ISO-8859-1", "text/html; charset=utf-8"])
@pytest.mark.parametrize(
    ("language", "charset", "expected"),
    [
        ("ja", "cp932", "right"), ("ja", "euc_jp", "right"), ("ja", "iso2022_jp", "right"), ("ko", "cp949", "right"),
        ("ru", "cp1251", "right"), ("ru", "koi8_r", "right"), ("uk", "cp1251", "right"), ("bg", "cp1251", "right"),
        ("zh", "gb18030", "right"), ("ru", "iso8859_5", "right"), ("el", "cp1253", "right"),
        ("he", "cp1255", "right"), ("ar", "cp1256", "right"), ("th", "cp874", "right"), ("ru", "mac_cyrillic", "right"),
    ],
)  # fmt: skip
def test_other_scripts_that_are_declared_wrongly_come_out_right(language, charset, expected, header):
    for seed in range(2):
        assert outcome(*names(language, charset, seed), header) == expected


def test_utf8_with_a_bad_byte_is_never_read_as_windows_1252():
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
    """Sixty umlauts and one bad byte were once read as Korean."""
    decoded = decode(body, header)
    assert decoded.text == body.decode("utf-8", "replace")
    assert decoded.warning.startswith("the page is UTF-8 except for 1 bad sequences")
    assert ("windows-1252" in decoded.warning) == ("iso-8859-1" in header)


@pytest.mark.parametrize(
    ("label", "codec", "text"),
    [
        ("IBM855", "cp855", "Столица"), ("cp852", "cp852", "Příliš žluťoučký"), ("cp437", "cp437", "Größe"),
        ("johab", "johab", "서울은"),
    ],
)  # fmt: skip
def test_charsets_of_old_systems_are_read_if_they_are_named(label, codec, text):
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


def test_a_few_bad_sequences_give_a_warning():
    body = GERMAN.encode() * 1_000 + b"\xff"
    decoded = decode(body)
    assert decoded.text.endswith("\ufffd")
    assert "1 bad" in decoded.warning


@pytest.mark.parametrize("body", [b"\x81\x8d\xff\xfe\x9d" * 20, b"\x80\x81\x82" + b"\xc3" * 3])
def test_bytes_that_are_no_text(body):
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
        (b"<!-- a > <meta charset=big5>", ""),
        (b"<!--> <meta charset=big5>", "big5"),
        (b"<a title='<meta charset=big5>'><meta charset=gbk>", "gbk"),
        (b"<meta name=charset content=big5>", ""),
        (b'<meta content="text/html; charset=big5">', ""),
        (b"<meta charset=nonsense><meta charset=gbk>", "gbk"),
        (b"<meta charset=x-user-defined>", "windows-1252"),
        (b"<meta charset=utf-16>", "utf-8"),
        (b" " * 5_000 + b"<meta charset=gbk>", "gbk"),
        (b"<p>charset=gbk</p>", ""),
    ],
)
def test_the_charset_that_a_document_declares(body, label):
    assert prescan.labels(body)[:1] == [label][: len(label)]


# ── two readings of the same bytes ──


@pytest.mark.parametrize(
    ("text", "charset", "other"),
    [
        ("NESCAFÉ® Gold", "iso-8859-1", "utf-8"), ("一小时", "gbk", "utf-8"), ("谢谢", "gb2312", "utf-8"), ("치킨", "euc-kr", "utf-8"),
        ("AMANHÃ»", "iso-8859-1", "utf-8"), ("Zürich", "utf-8", ""), ("да", "utf-8", ""), ("São Paulo", "iso-8859-1", "windows-1250"),
        ("Größe", "iso-8859-1", ""), ("Привет", "koi8-r", ""), ("①㈱", "shift_jis", ""), ("“a” – b’s", "windows-1252", ""),
    ],
)  # fmt: skip
def test_a_correct_header_counts_for_short_texts(text, charset, other):
    """Four of them are valid UTF-8, too, and were once read as such. Then the warning names both charsets."""
    codec = {"gb2312": "gbk", "iso-8859-1": "cp1252", "shift_jis": "cp932"}.get(charset, charset)
    decoded = decode(text.encode(codec), f"text/html; charset={charset}")
    assert decoded.text == text
    assert bool(decoded.warning) == bool(other)
    assert other in decoded.warning
    assert not other or charset in decoded.warning


@pytest.mark.parametrize(
    ("body", "header", "text", "named"),
    [
        ("Zürich".encode(), "iso-8859-1", "Zürich", ("iso-8859-1", "utf-8")),
        ("東京".encode(), "gbk", "東京", ("gbk", "utf-8")),
        ("Привет, мир".encode("koi8-r"), "iso-8859-1", "Привет, мир", ("iso-8859-1", "koi8-r")),
        ("Привет, Яна и Пётр".encode("koi8-r"), "windows-1251", None, ("windows-1251", "koi8-r")),
        ("Zażółć gęślą jaźń".encode("cp1250"), "iso-8859-1", None, ("iso-8859-1", "windows-1250")),
        ("İstanbul'un şehirleri ve ılık".encode("cp1254"), "iso-8859-1", None, ("iso-8859-1", "windows-1254")),
        ("– “tak”".encode("cp1250"), "iso-8859-2", None, ("iso-8859-2", "windows-125")),
        ("中文网页".encode("gbk"), "big5", None, ("big5", "gb18030")),
        ("日本語のページ".encode("iso2022_jp"), "shift_jis", "日本語のページ", ("shift_jis", "iso-2022-jp")),
        ("日本語のページ".encode("iso2022_jp"), "utf-8", "日本語のページ", ("utf-8", "iso-2022-jp")),
        ("<a>x</a>".encode("utf-16-be"), "utf-16", "<a>x</a>", ("utf-16le", "utf-16be")),
        ("Übung".encode("utf-16-le"), "iso-8859-1", "Übung", ("iso-8859-1", "utf-16le")),
        (b"plain", "utf-16", "plain", ("utf-16le", "utf-8")),
        ("café".encode("utf-7"), "utf-7", "café", ("utf-7", "utf-8")),
        (b"caf\xc3\xa9 na\xefve d\xe9j\xe0 v\xfb", "iso-8859-1", "cafÃ© naïve déjà vû", ()),
        (b"<meta charset=koi8-r>\xf0\xd2\xc9\xd7\xc5\xd4", "windows-1251", None, ("windows-1251", "koi8-r")),
    ],
)  # fmt: skip
def test_a_doubtful_declaration_gives_a_warning_with_both_charsets(body, header, text, named):
    decoded = decode(body, f"text/html; charset={header}")
    assert text is None or decoded.text == text
    for name in named:
        assert name in decoded.warning


@pytest.mark.parametrize(
    ("body", "text", "named"),
    [
        ("日本語".encode("iso2022_jp"), "日本語", "iso-2022-jp"), ("日本語①".encode("iso2022_jp_2004"), "日本語①", "iso-2022-jp"),
        ("Übung".encode("utf-16-be"), "Übung", "utf-16be"), ("東京 Tokyo".encode("utf-16-le"), "東京 Tokyo", "utf-16le"),
        ("Привет, мир".encode("mac-cyrillic"), "Привет, мир", "x-mac-cyrillic"), ("一小时".encode("gbk"), "一小时", "gb18030"),
        ("치킨".encode("cp949"), None, "euc-kr"), ("谢谢".encode("gbk"), None, "gb18030"), ("a".encode("utf-32"), "a", ""),
        ("à".encode(), "à", ""), ("हिन्दी".encode(), "हिन्दी", ""), ("ქართული".encode(), "ქართული", ""), ("✓ ok".encode(), "✓ ok", ""),
        (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m", ""),
    ],
)  # fmt: skip
def test_an_undeclared_charset_is_found_by_the_bytes(body, text, named):
    decoded = decode(body)
    assert text is None or decoded.text == text
    assert bool(decoded.warning) == bool(named)
    assert named in decoded.warning


@pytest.mark.parametrize(
    ("label", "body", "text"),
    [
        ("windows-874", "ภาษาไทยและอื่นๆ".encode("cp874") + b"\xdb", "ภาษาไทยและอื่นๆ\ufffd"),
        ("windows-1253", "Ελληνικά και άλλα".encode("cp1253") + b"\xff", "Ελληνικά και άλλα\ufffd"),
        ("windows-1255", "עברית ועוד דברים".encode("cp1255") + b"\xff", "עברית ועוד דברים\ufffd"),
        ("windows-1257", "Lietuvių kalba ir žodžiai čia, šėtonas ąžuolą".encode("cp1257") + b"\xa1", None),
        ("euc-jp", b"\xad\xa1\xad\xea\xc6\xfc\xcb\xdc\xb8\xec\xa4\xce\xa5\xda\xa1\xbc\xa5\xb8\xff", "①㈱日本語のページ\ufffd"),
    ],
)  # fmt: skip
def test_a_byte_that_a_charset_lacks_gives_a_warning(label, body, text):
    """It once raised UnicodeDecodeError in the worker."""
    for header, override in ((f"text/html; charset={label}", ""), ("", label)):
        decoded = decode(body, header, override)
        assert text is None or decoded.text == text
        assert decoded.text.endswith("\ufffd")
        assert f"{label} except for 1 bad" in decoded.warning


@pytest.mark.parametrize(
    ("body", "header"),
    [
        ("한국어".encode("iso2022_kr"), ""), ("한국어".encode("iso2022_kr"), "iso-2022-kr"), ("中文".encode("hz"), "hz-gb-2312"),
        ("<meta charset=hz-gb-2312>中文".encode("hz"), ""),
    ],
)  # fmt: skip
def test_charsets_that_browsers_refuse_fail_with_a_hint(body, header):
    with pytest.raises(DecodeFailed, match=r'charset = "(iso-2022-kr|hz-gb-2312)" in the definition'):
        decode(body, f"text/html; charset={header}" if header else "")
    for label in ("iso-2022-kr", "hz-gb-2312"):
        if label in header:
            assert decode(body, "", label).text in ("한국어", "中文")


def test_xml_follows_its_declaration_even_if_it_holds_a_page():
    body = '<?xml version="1.0" encoding="koi8-r"?><a><meta charset="windows-1251"/>Привет</a>'.encode("koi8-r")
    assert decode(body, "text/xml").text == body.decode("koi8-r")
    assert prescan.labels(body) == ["koi8-r", "windows-1251"]
    assert prescan.labels(body.replace(b"<a>", b"<html>")) == ["windows-1251", "koi8-r"]
    hidden = body.replace(b"<meta", b"<![CDATA[<meta").replace(b"/>", b"/>]]>")
    assert prescan.labels(hidden) == ["koi8-r"]


@pytest.mark.parametrize("header", ["iso-2022-jp", "", "utf-8"])
def test_iso_2022_jp_with_a_fault_gives_a_warning(header):
    body = b"\x1b$B" + JAPANESE.encode("iso2022_jp")[3:-3] + b"~\x1b(B"
    decoded = decode(body, f"text/html; charset={header}" if header else "")
    assert decoded.text == JAPANESE + "\ufffd"
    assert "iso-2022-jp except for 1 bad" in decoded.warning


def test_wrongly_declared_iso_2022_jp_fails():
    with pytest.raises(DecodeFailed):
        decode(b"\x1b$B!" * 100, "text/html; charset=iso-2022-jp")
    decoded = decode(b"log \x1b$B!\x1b$B! more")
    assert decoded.encoding == "utf-8"
    assert "iso-2022-jp" in decoded.warning


@pytest.mark.parametrize(
    "label", ["", "euc-jp", "shift_jis", "big5", "gb18030", "iso-2022-jp", "euc-kr", "utf-16", "utf-7"]
)
def test_random_bytes_raise_no_other_error(label):
    """Python's iso2022_jp_2 raises RuntimeError for some."""
    with contextlib.suppress(DecodeFailed):
        decode(b"\x1b$B!!\x1b(B\x1b.J\x1bNw", f"text/plain; charset={label}")
    for seed in range(3):
        body = random.Random(seed).randbytes(20_000)
        for one in (body, body[:7], bytes(byte & 0x7F for byte in body)):
            with contextlib.suppress(DecodeFailed):
                assert decode(one, f"text/html; charset={label}" if label else "").warning or one.isascii()


@pytest.mark.parametrize(
    ("begins", "is_usual"),
    [
        (b"<!DOCTYPE html>\n<html lang='a>b'><head>\n<meta charset=\"UTF-8\" />", True),
        (b"<meta charset=utf-8>", True),
        (b"<meta charset=utf-8/>", False),
        (b"<meta charset=\"utf-8'>", False),
        (b"<meta\x0bcharset=utf-8>", False),
        (b'<html a="><meta charset=utf-8>">', False),
        (b'<html a=x"y b="><meta charset=utf-8>">', False),
        (b'<html =" >"><meta charset=utf-8>', False),
        (b"<htmlx><meta charset=utf-8>", False),
        (b"<!-- <meta charset=utf-8> -->", False),
    ],
)
def test_the_short_cut_for_usual_pages_finds_the_same_as_the_prescan(begins, is_usual):
    body = begins + b"<meta charset=koi8-r><p>"
    assert (prescan._USUAL.match(body) is not None) == is_usual
    label = prescan.prescan(body)
    assert prescan.labels(body) == ([label] if label else [])
