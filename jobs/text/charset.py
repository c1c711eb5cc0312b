"""Finds the charset of a body, and gives its text. docs/sources.md ("Charsets") promises this order.

    override → BOM → zero bytes of UTF-16 → escape sequences of ISO-2022-JP → valid or nearly valid UTF-8
      → header → meta or XML declaration → the charset that the text reads best in → DecodeFailed

Labels have the meaning that WHATWG gives them (jobs.text.encodings): ``iso-8859-1`` is windows-1252, ``shift_jis`` is Windows'
version of it. When the bytes fit two charsets, the declared one wins, unless its text looks like no language and the other's
does (jobs.text.bigrams). A warning then names both. Without a warning there was no doubt.
"""

import codecs
import re
from collections.abc import Sequence
from typing import Final

from jobs import memory
from jobs.errors import DecodeFailed
from jobs.text import encodings
from jobs.text.bigrams import Rating
from jobs.text.byte_patterns import by_escapes, by_zeros
from jobs.text.candidates import CANDIDATES, LIKELY, Candidates, Declared, declarations, encoding_of, header_label
from jobs.text.decoded import (
    FAULTS_PER_GOOD,
    FAULTS_PER_GOOD_IF_DECLARED,
    RECODED,
    Decoded,
    faults,
    made,
    not_text,
    refused,
    with_few_faults,
)
from jobs.text.encodings import FAULT, REPLACEMENT, UTF_8, WESTERN

CHECKED_BYTES: Final = 1_048_576  # piece in which a body is tested for valid UTF-8
PIECE_BYTES: Final = 128  # piece in which a mostly ASCII body is searched for other characters
# Continuation bytes of UTF-8. No text in another charset has this many, in different words, by chance.
CERTAIN: Final = 24

_EAST_ASIAN: Final = ("gb18030", "shift_jis", "euc-kr", "big5", "euc-jp")
_HIGH: Final = bytes(range(0x80, 0x100))
# Thresholds for Rating.score (jobs.text.bigrams), from 0 to 1.
GOOD: Final = 0.7  # reads as a language
SURE: Final = 0.95  # leaves no doubt
CLOSE: Final = 1.5  # divided by the weight: scores that differ by less count as equal
GUESSED: Final = 0.75  # good enough when no charset is declared
BAD: Final = 0.4  # reads as no language
BETTER: Final = 0.3  # how much higher another charset must score to be preferred
MUCH_BETTER: Final = 0.5
# Letter pairs that a sample must have before it outweighs …
WEIGHT_MIN: Final = 6  # … windows-1252, which servers declare by default
WEIGHT_MIN_IF_RARE: Final = 8  # … a common charset, for a rare one
WEIGHT_MIN_IF_DECLARED: Final = 12  # … a charset that somebody chose to declare

_BOMS: Final = (
    (codecs.BOM_UTF8, UTF_8), (codecs.BOM_UTF32_LE, "utf-32le"), (codecs.BOM_UTF32_BE, "utf-32be"),
    (codecs.BOM_UTF16_LE, "utf-16le"), (codecs.BOM_UTF16_BE, "utf-16be"),
)  # fmt: skip
_CONTROLS: Final = re.compile("[\x80-\x84\x86-\x9f]")  # characters of no text
_LOW: Final = bytes(range(0x80))
_RUN: Final = re.compile(rb"[\x80-\xff]++")
# Lead bytes that no UTF-8 of Western languages, Cyrillic, Chinese, Japanese, Korean and emoji has.
_ODD: Final = re.compile(rb"[\xc4-\xcf\xd2-\xdf\xe0\xe1\xee\xef]")
_TOGETHER: Final = re.compile("[^\x00-\x7f]{2}")
_HZ: Final = re.compile(rb"~\{[\x21-\x7e]{2}")


def decode(body: bytes, content_type: str = "", override: str = "") -> Decoded:
    """The text of a body. Raises DecodeFailed when no charset fits, or when ``override`` does not."""
    if override:
        return _overridden(body, override)
    for mark, name in _BOMS:
        if body.startswith(mark) and (not name.startswith("utf-32") or len(body) % 4 == 0):
            return _marked(body[len(mark) :], name)
    if body.isascii() and b"\x1b" not in body and b"\x00" not in body:
        return _ascii(body, content_type)
    candidates = Candidates(body, content_type)
    if b"\x00" in body and (found := by_zeros(candidates)) is not None:
        return found
    if b"\x1b" in body and (found := by_escapes(candidates)) is not None:
        return found
    if (following := _following_bytes(body)) >= 0:
        return _valid_utf8(candidates, following)
    memory.reserve(len(body) * RECODED, "a body in another charset than UTF-8")
    return _nearly_utf8(candidates) or _declared(candidates) or _guessed(candidates)


def is_known(label: str) -> bool:
    """Whether a definition may name this charset."""
    found = encodings.lookup(label, is_override=True)
    return found is not None and found.name != REPLACEMENT


def text_bytes(utf8: bytes) -> int:
    """The memory that the text of this UTF-8 takes at most: Python stores each character as wide as the widest."""
    if utf8.isascii():
        return len(utf8)
    return len(utf8) * (4 if any(lead in utf8 for lead in (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")) else 2)


# ── what the bytes themselves say ──


def _overridden(body: bytes, label: str) -> Decoded:
    memory.reserve(len(body) * RECODED, f"a body in {label}")
    encoding = encodings.lookup(label, is_override=True)
    is_read = encoding is not None and encoding.name != REPLACEMENT
    text = with_few_faults(body, encoding, is_declared=True) if encoding is not None and is_read else None
    if encoding is None or text is None:
        raise DecodeFailed(f"expected {label}, as the definition says, found other bytes")
    for mark, name in _BOMS:
        if body.startswith(mark) and encoding.name == name:
            text = text.removeprefix("\ufeff")
    return made(text, encoding.name, faults(text, label))


def _marked(body: bytes, name: str) -> Decoded:
    if name == UTF_8 and _following_bytes(body) >= 0:
        return Decoded(body, name)
    memory.reserve(len(body) * RECODED, f"a body in {name}")
    text = encoding_of(name).decode(body)
    count = text.count(FAULT)
    return made(text, name, f"the page says {name} by its first bytes and has {count} bad sequences" if count else "")


def _ascii(body: bytes, content_type: str) -> Decoded:
    """A body of ASCII bytes, which nearly all charsets read alike."""
    for declared in declarations(header_label(content_type)):
        if declared.encoding.name.startswith(("utf-16", "utf-32")):
            return Decoded(
                body, UTF_8, f"the header says {declared.shown}, and the bytes are ASCII: it was read as utf-8"
            )
        if (
            declared.encoding.name == "utf-7"
            and FAULT not in (text := declared.encoding.decode(body))
            and not text.isascii()
        ):
            return made(text, "utf-7", "the header says utf-7, and the bytes are utf-8 too: it was read as utf-7")
        if declared.encoding.name == REPLACEMENT and _HZ.search(body):
            raise refused(declared)
    if b"~" in body and _HZ.search(body):
        for declared in Candidates(body, content_type).declared:
            if declared.encoding.name == REPLACEMENT:
                raise refused(declared)
    return Decoded(body, UTF_8)


# ── UTF-8 ──


def _following_bytes(body: bytes) -> int:
    """The number of continuation bytes in valid UTF-8; -1 for anything else."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    count = len(body)
    try:
        for start in range(0, len(body), CHECKED_BYTES):
            count -= len(decoder.decode(body[start : start + CHECKED_BYTES]))
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return -1
    return count


def _valid_utf8(body: Candidates, following: int) -> Decoded:
    """Valid UTF-8. With few sequences it may be another charset by chance; then the declaration decides."""
    utf8 = Decoded(body.bytes, UTF_8)
    if body.bytes.isascii():
        return utf8
    declared = next(declarations(header_label(body.content_type)), None)
    is_utf8 = declared is None and "json" in body.content_type.lower()
    if following >= CERTAIN and (declared is None or declared.encoding.name == UTF_8):
        return utf8
    if declared is None and not is_utf8:
        declared = next(iter(body.declared), None)
    is_utf8 = is_utf8 or (declared is not None and declared.encoding.name == UTF_8)
    if (is_utf8 or declared is None) and _is_plain(body.bytes, is_declared=is_utf8):
        return utf8
    text, here = body.rate(encoding_of(UTF_8))
    if declared is None or declared.encoding.name == UTF_8:
        return _short_utf8(body, utf8, text, here, is_declared=is_utf8)
    if declared.encoding.name == REPLACEMENT:
        raise refused(declared)
    other_text, other = body.rate(declared.encoding)
    different = len(body.sample) - len(body.sample.translate(None, _HIGH))
    is_certain = different >= 2 * CERTAIN or (
        here.score >= max(GUESSED * 2 / 3, 2 * other.score) and different >= CERTAIN / 2
    )
    if is_certain or text == other_text:
        return utf8
    is_usual = declared.encoding.name == WESTERN
    may_be = ""
    if max(here.score, other.score) < GOOD:
        name, best = body.best(text)
        may_be = f", or {name}" if best.score >= GOOD and name != declared.encoding.name else ""
    is_better = here.score > other.score + BETTER / 2 and (is_usual or here.score >= other.score + MUCH_BETTER)
    whole = None
    if FAULT not in other_text and not is_better:
        memory.reserve(len(body.bytes) * RECODED, f"a body in {declared.label}")
        whole = with_few_faults(body.bytes, declared.encoding, is_declared=True)
    if whole is None:
        return Decoded(
            body.bytes,
            UTF_8,
            f"{declared.place} says {declared.shown}, and the bytes may be utf-8{may_be} too: it was read as utf-8",
        )
    return made(
        whole,
        declared.encoding.name,
        f"the bytes are {declared.shown}, as {declared.place} says, and may be utf-8{may_be} too: "
        f"it was read as {declared.encoding.name}",
    )


def _is_plain(body: bytes, *, is_declared: bool) -> bool:
    """Whether UTF-8 has only usual characters, and, if UTF-8 is not declared, no two of them side by side."""
    if is_declared:
        try:
            # Quick, and true of most Western pages; no odd lead byte is among these characters.
            body.decode().encode("latin-1")
        except UnicodeEncodeError:
            return _ODD.search(body.translate(None, _LOW)) is None
        return True
    step = max(PIECE_BYTES, len(body) // 2_000)
    for start in range(0, len(body), step):
        piece = body[start : start + step]
        if piece.isascii():
            continue
        for run in _RUN.findall(piece):
            width = 2 if run[0] < 0xE0 else 3 if run[0] < 0xF0 else 4
            if _ODD.search(run) is not None or len(run) > width:
                return False
    return True


def _short_utf8(body: Candidates, utf8: Decoded, text: str, here: Rating, *, is_declared: bool) -> Decoded:
    """A little UTF-8, declared or with no declaration. In doubt if it reads as no language and another charset does."""
    if here.score >= (BAD if is_declared else GOOD) and here.weight:
        is_long = len(body.sample) - len(body.sample.translate(None, _HIGH)) > CERTAIN / 2
        if is_declared or is_long or _TOGETHER.search(text) is None:  # single letters are Western
            return utf8
        name, best = body.best(text, _EAST_ASIAN)
        if best.score >= GOOD - BETTER / 3:
            utf8.warning = f"the bytes are utf-8 and {name}, and nothing says which: it was read as utf-8"
        return utf8
    name, best = body.best(text)
    if best.score < GOOD or best.score <= here.score or best.weight < 2:
        return utf8
    if not is_declared and here.score <= BAD / 2 and best.score >= GOOD + BETTER / 2:
        memory.reserve(len(body.bytes) * RECODED, f"a body in {name}")
        return made(
            encoding_of(name).decode(body.bytes), name,
            f"the page does not declare its real charset; the bytes are utf-8 too; it was read as {name}",
        )  # fmt: skip
    utf8.warning = f"the bytes are utf-8 and {name}, and read better in {name}: it was read as utf-8"
    return utf8


def _nearly_utf8(body: Candidates) -> Decoded | None:
    text = body.bytes.decode("utf-8", "replace")
    count = text.count(FAULT)
    good = len(text) - len(text.encode("ascii", "ignore")) - count
    is_declared = any(declared.encoding.name == UTF_8 for declared in body.declared)
    if not good or count > good * (FAULTS_PER_GOOD_IF_DECLARED if is_declared else FAULTS_PER_GOOD):
        return None
    other = next((declared for declared in body.declared if declared.encoding.name != UTF_8), None)
    says = f", not {other.shown} as {other.place} says" if other is not None else ""
    return Decoded(text.encode(), UTF_8, f"the page is UTF-8 except for {count} bad sequences{says}")


# ── other charsets ──


def _declared(body: Candidates) -> Decoded | None:
    """The charset that the header or the page declares, if the bytes fit it and no other charset reads much better."""
    declared = [one for one in body.declared if one.encoding.name != UTF_8]
    for one in declared:
        if one.encoding.name == REPLACEMENT:
            raise refused(one)
        if one.encoding.name.startswith(("utf-16", "utf-32", "utf-7")) and len(body.bytes) % 2:
            continue
        sampled, here = body.rate(one.encoding)
        text = with_few_faults(body.bytes, one.encoding, is_declared=here.score >= GOOD - BETTER / 3)
        if text is None:
            continue
        others = [
            other
            for other in declared
            if other.encoding.name != one.encoding.name and body.rate(other.encoding)[0] != sampled
        ]
        if others and one.encoding.name == WESTERN and body.rate(others[0].encoding)[1].score >= here.score:
            continue  # servers declare windows-1252 by default; the page knows better
        if one.encoding.name != WESTERN and here.score >= SURE and not others and not _CONTROLS.search(sampled):
            return made(text, one.encoding.name, faults(text, one.label))
        if _is_false(one, here, body.best(sampled)[1]):
            return None
        return made(
            text,
            one.encoding.name,
            "; ".join(filter(None, (faults(text, one.label), _doubt(body, one, sampled, here, others)))),
        )
    return None


def _is_false(declared: Declared, here: Rating, best: Rating) -> bool:
    """Whether the declared charset reads so much worse than another that the declaration must be wrong."""
    if best.score < GOOD or (declared.encoding.name != WESTERN and here.score >= BAD):
        return False
    better, enough = best.score - here.score, best.weight >= WEIGHT_MIN_IF_DECLARED
    if declared.encoding.name == WESTERN and best.weight >= WEIGHT_MIN and better >= MUCH_BETTER:
        return True
    return enough and better >= BETTER


def _doubt(body: Candidates, declared: Declared, sampled: str, here: Rating, others: Sequence[Declared]) -> str:
    """The warning that names the other possible charset; "" if there is no doubt."""
    if others and FAULT not in body.rate(others[0].encoding)[0]:
        return (
            f"{declared.place} says {declared.shown}, and {others[0].place} {others[0].shown}: "
            f"it was read as {declared.encoding.name}"
        )
    name, best = body.best(sampled)
    if _CONTROLS.search(sampled) is not None:
        clean = [one for one in CANDIDATES if not _CONTROLS.search(body.rate(encoding_of(one))[0])]
        of_windows = [one for one in clean if one.startswith("windows-")]
        name, best = body.best(sampled, of_windows or clean)
        is_doubtful = best.score >= here.score - BETTER / 3
    elif declared.encoding.name != WESTERN:
        is_doubtful = here.score < SURE and here.weight >= 2 and best.score >= here.score + BETTER / 3
    elif best.score >= here.score + BETTER / 3:
        is_doubtful = True
    else:
        name, best = body.best(sampled, LIKELY)
        is_doubtful = best.score >= here.score - CLOSE / max(best.weight, 1)
    is_doubtful = is_doubtful and (best.weight >= 2 or here.score <= 0)
    is_other = best.score >= GOOD or (here.score < MUCH_BETTER and best.score >= here.score + BETTER / 3)
    if not is_doubtful or not is_other:
        return ""
    return (
        f"the bytes are {declared.shown}, as {declared.place} says, and may be {name}: it was read as {declared.encoding.name}; "
        "set charset in the definition to decide"
    )


def _guessed(body: Candidates) -> Decoded:
    """The charset that the text reads best in."""
    name, best = body.best("", LIKELY)
    rarely, better = body.best("")
    if better.score > best.score and better.weight >= WEIGHT_MIN_IF_RARE:
        name, best = rarely, better
    western = body.rate(encoding_of(WESTERN))
    if (
        not name
        or best.score < GUESSED
        or best.weight < 2
        or (best.weight < WEIGHT_MIN and western[1].score >= best.score)
    ):
        is_text = not re.search("[\x80-\x9f]", western[0]) and _may_be_western(western[0])
        name = WESTERN if is_text and western[1].score >= BAD / 2 else ""
    text = with_few_faults(body.bytes, encoding_of(name)) if name else None
    if text is None:
        raise not_text()
    declared = next((f"{one.place} says {one.shown}, and " for one in body.declared), "")
    return made(text, name, f"{declared}the page does not declare its real charset; it was read as {name}")


# No Western language has this many letters beyond ASCII in a row. Bytes of other scripts, read as windows-1252, do.
_FOREIGN: Final = re.compile("[\xa1-\xff]{4,}")
FOREIGN_MIN: Final = 20  # a list of all umlauts is shorter


def _may_be_western(text: str) -> bool:
    """Whether a text that was read as windows-1252 can be Western, and not the bytes of another script."""
    foreign = sum(found.end() - found.start() for found in _FOREIGN.finditer(text))
    return foreign < FOREIGN_MIN or foreign < sum(character > "\x7f" for character in text) / 2
