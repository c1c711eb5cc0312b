"""What charset a body is in, and its text (the order is the source format's).

    override → BOM → zeros of UTF-16 → escape sequences of ISO-2022-JP → UTF-8 that says so itself, also with a few faults
      → header → meta or declaration → the charset that the text reads best in → DecodeFailed

Labels mean what WHATWG says they mean (jobs.text.encodings): ``iso-8859-1`` is windows-1252, ``shift_jis`` is what Windows made
of it. Where the bytes can be read in two charsets, the one that is said decides, unless its reading is no language and the
other one's is (jobs.text.bigrams); a warning then names both. No warning means that there was no doubt.
"""

import codecs
import re
from collections.abc import Sequence
from typing import Final

from jobs import memory
from jobs.errors import DecodeFailed
from jobs.text import encodings
from jobs.text.bigrams import Reading
from jobs.text.byte_patterns import by_escapes, by_zeros
from jobs.text.candidates import CANDIDATES, LIKELY, Evidence, Said, encoding_of, in_header, known
from jobs.text.decoded import (
    FAULTS_PER_GOOD,
    FAULTS_PER_GOOD_IF_SAID,
    RECODED,
    Decoded,
    faults,
    made,
    not_text,
    refused,
    with_few_faults,
)
from jobs.text.encodings import FAULT, REPLACEMENT, UTF_8, WESTERN

CHECKED_BYTES: Final = 1_048_576  # decoded at once where only whether it can be is asked
# Bytes of UTF-8 that follow others: so many, in different words, come about by chance in no other charset.
PIECE_BYTES: Final = 128  # looked at at once where few are beyond ASCII
CERTAIN: Final = 24

_EAST_ASIAN: Final = ("gb18030", "shift_jis", "euc-kr", "big5", "euc-jp")
_HIGH: Final = bytes(range(0x80, 0x100))
# How well a reading reads (jobs.text.bigrams): well; well, where nothing is said; so badly that it is none; how much better another one has to be.
GOOD: Final = 0.7
SURE: Final = 0.95
CLOSE: Final = 1.5  # divided by the weight
GUESSED: Final = 0.75
BAD: Final = 0.4
BETTER: Final = 0.3
MUCH_BETTER: Final = 0.5
WEIGHT_MIN: Final = 6  # letters beside each other that tell against a server's usual word
WEIGHT_MIN_IF_RARE: Final = 8  # for a charset that is hardly met
WEIGHT_MIN_IF_SAID: Final = 12  # against one that somebody chose

_BOMS: Final = (
    (codecs.BOM_UTF8, UTF_8), (codecs.BOM_UTF32_LE, "utf-32le"), (codecs.BOM_UTF32_BE, "utf-32be"),
    (codecs.BOM_UTF16_LE, "utf-16le"), (codecs.BOM_UTF16_BE, "utf-16be"),
)  # fmt: skip
_CONTROLS: Final = re.compile("[\x80-\x84\x86-\x9f]")  # that no text has
_LOW: Final = bytes(range(0x80))
_RUN: Final = re.compile(rb"[\x80-\xff]++")
# What begins no sequence of UTF-8 of Western languages, Cyrillic, Chinese, Japanese, Korean, and pictures.
_ODD: Final = re.compile(rb"[\xc4-\xcf\xd2-\xdf\xe0\xe1\xee\xef]")
_TOGETHER: Final = re.compile("[^\x00-\x7f]{2}")
_HZ: Final = re.compile(rb"~\{[\x21-\x7e]{2}")


def decode(body: bytes, content_type: str = "", override: str = "") -> Decoded:
    """A body as UTF-8; raises DecodeFailed when nothing fits, or when ``override`` does not."""
    if override:
        return _overridden(body, override)
    for mark, name in _BOMS:
        if body.startswith(mark) and (not name.startswith("utf-32") or len(body) % 4 == 0):
            return _marked(body[len(mark) :], name)
    if body.isascii() and b"\x1b" not in body and b"\x00" not in body:
        return _ascii(body, content_type)
    evidence = Evidence(body, content_type)
    if b"\x00" in body and (found := by_zeros(evidence)) is not None:
        return found
    if b"\x1b" in body and (found := by_escapes(evidence)) is not None:
        return found
    if (following := _following_bytes(body)) >= 0:
        return _valid_utf8(evidence, following)
    memory.reserve(len(body) * RECODED, "a body in another charset than UTF-8")
    return _nearly_utf8(evidence) or _declared(evidence) or _guessed(evidence)


def is_known(label: str) -> bool:
    """Whether a label names a charset that a definition may have."""
    found = encodings.lookup(label, is_override=True)
    return found is not None and found.name != REPLACEMENT


def text_bytes(utf8: bytes) -> int:
    """What the text of UTF-8 takes at most: every character of it is as wide as its widest."""
    if utf8.isascii():
        return len(utf8)
    return len(utf8) * (4 if any(lead in utf8 for lead in (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")) else 2)


# ── what the bytes themselves say ──


def _overridden(body: bytes, label: str) -> Decoded:
    memory.reserve(len(body) * RECODED, f"a body in {label}")
    encoding = encodings.lookup(label, is_override=True)
    is_read = encoding is not None and encoding.name != REPLACEMENT
    text = with_few_faults(body, encoding, is_said=True) if encoding is not None and is_read else None
    if encoding is None or text is None:
        raise DecodeFailed(f"expected {label}, as the definition says, found bytes that are none")
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
    """What is ASCII in nearly all charsets."""
    for said in known(in_header(content_type)):
        if said.encoding.name.startswith(("utf-16", "utf-32")):
            return Decoded(body, UTF_8, f"the header says {said.shown}, and the bytes are ASCII: it was read as utf-8")
        if said.encoding.name == "utf-7" and FAULT not in (text := said.encoding.decode(body)) and not text.isascii():
            return made(text, "utf-7", "the header says utf-7, and the bytes are utf-8 too: it was read as utf-7")
        if said.encoding.name == REPLACEMENT and _HZ.search(body):
            raise refused(said)
    if b"~" in body and _HZ.search(body):
        for said in Evidence(body, content_type).said:
            if said.encoding.name == REPLACEMENT:
                raise refused(said)
    return Decoded(body, UTF_8)


# ── UTF-8 ──


def _following_bytes(body: bytes) -> int:
    """How many bytes of UTF-8 follow others in their sequences; -1 for what is no UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    count = len(body)
    try:
        for start in range(0, len(body), CHECKED_BYTES):
            count -= len(decoder.decode(body[start : start + CHECKED_BYTES]))
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return -1
    return count


def _valid_utf8(body: Evidence, following: int) -> Decoded:
    """What is UTF-8, and with few sequences may be something else by chance: then what is said decides."""
    utf8 = Decoded(body.bytes, UTF_8)
    if body.bytes.isascii():
        return utf8
    said = next(known(in_header(body.content_type)), None)
    is_utf8 = said is None and "json" in body.content_type.lower()
    if following >= CERTAIN and (said is None or said.encoding.name == UTF_8):
        return utf8
    if said is None and not is_utf8:
        said = next(iter(body.said), None)
    is_utf8 = is_utf8 or (said is not None and said.encoding.name == UTF_8)
    if (is_utf8 or said is None) and _is_plain(body.bytes, is_said=is_utf8):
        return utf8
    text, here = body.read(encoding_of(UTF_8))
    if said is None or said.encoding.name == UTF_8:
        return _short_utf8(body, utf8, text, here, is_said=is_utf8)
    if said.encoding.name == REPLACEMENT:
        raise refused(said)
    other_text, other = body.read(said.encoding)
    different = len(body.sample) - len(body.sample.translate(None, _HIGH))
    is_certain = different >= 2 * CERTAIN or (
        here.score >= max(GUESSED * 2 / 3, 2 * other.score) and different >= CERTAIN / 2
    )
    if is_certain or text == other_text:
        return utf8
    is_usual = said.encoding.name == WESTERN
    may_be = ""
    if max(here.score, other.score) < GOOD:
        name, best = body.best(text)
        may_be = f", or {name}" if best.score >= GOOD and name != said.encoding.name else ""
    if FAULT in other_text or (
        here.score > other.score + BETTER / 2 and (is_usual or here.score >= other.score + MUCH_BETTER)
    ):
        return Decoded(
            body.bytes,
            UTF_8,
            f"{said.place} says {said.shown}, and the bytes may be utf-8{may_be} too: it was read as utf-8",
        )
    memory.reserve(len(body.bytes) * RECODED, f"a body in {said.label}")
    whole = said.encoding.decode(body.bytes)
    return made(
        whole,
        said.encoding.name,
        f"the bytes are {said.shown}, as {said.place} says, and may be utf-8{may_be} too: "
        f"it was read as {said.encoding.name}",
    )


def _is_plain(body: bytes, *, is_said: bool) -> bool:
    """Whether UTF-8 has usual characters only, and each by itself where nobody says UTF-8."""
    if is_said:
        return _ODD.search(body.translate(None, _LOW)) is None
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


def _short_utf8(body: Evidence, utf8: Decoded, text: str, here: Reading, *, is_said: bool) -> Decoded:
    """UTF-8 that is said, or said by nobody: in doubt where another reading is a language and this one is none."""
    if here.score >= (BAD if is_said else GOOD) and here.weight:
        is_long = len(body.sample) - len(body.sample.translate(None, _HIGH)) > CERTAIN / 2
        if is_said or is_long or _TOGETHER.search(text) is None:  # one letter between others is a Western one
            return utf8
        name, best = body.best(text, _EAST_ASIAN)
        if best.score >= GOOD - BETTER / 3:
            utf8.warning = f"the bytes are utf-8 and {name}, and nothing says which: it was read as utf-8"
        return utf8
    name, best = body.best(text)
    if best.score < GOOD or best.score <= here.score or best.weight < 2:
        return utf8
    if not is_said and here.score <= BAD / 2 and best.score >= GOOD + BETTER / 2:
        memory.reserve(len(body.bytes) * RECODED, f"a body in {name}")
        return made(
            encoding_of(name).decode(body.bytes), name,
            f"the page does not say truly what charset it is in; the bytes are utf-8 too; it was read as {name}",
        )  # fmt: skip
    utf8.warning = f"the bytes are utf-8 and {name}, and read better in {name}: it was read as utf-8"
    return utf8


def _nearly_utf8(body: Evidence) -> Decoded | None:
    text = body.bytes.decode("utf-8", "replace")
    count = text.count(FAULT)
    good = len(text) - len(text.encode("ascii", "ignore")) - count
    is_said = any(said.encoding.name == UTF_8 for said in body.said)
    if not good or count > good * (FAULTS_PER_GOOD_IF_SAID if is_said else FAULTS_PER_GOOD):
        return None
    other = next((said for said in body.said if said.encoding.name != UTF_8), None)
    says = f", not {other.shown} as {other.place} says" if other is not None else ""
    return Decoded(text.encode(), UTF_8, f"the page is UTF-8 but for {count} bad sequences{says}")


# ── other charsets ──


def _declared(body: Evidence) -> Decoded | None:
    """The charset that the header or the page names, where the bytes are of it and its reading is no worse than another."""
    said = [one for one in body.said if one.encoding.name != UTF_8]
    for one in said:
        if one.encoding.name == REPLACEMENT:
            raise refused(one)
        if one.encoding.name.startswith(("utf-16", "utf-32", "utf-7")) and len(body.bytes) % 2:
            continue
        sampled, here = body.read(one.encoding)
        text = with_few_faults(body.bytes, one.encoding, is_said=here.score >= GOOD - BETTER / 3)
        if text is None:
            continue
        others = [
            other
            for other in said
            if other.encoding.name != one.encoding.name and body.read(other.encoding)[0] != sampled
        ]
        if others and one.encoding.name == WESTERN and body.read(others[0].encoding)[1].score >= here.score:
            continue  # servers say windows-1252 by default: the page knows better
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


def _is_false(said: Said, here: Reading, best: Reading) -> bool:
    """Whether what is said reads so much worse than another charset that it is not believed."""
    if best.score < GOOD or (said.encoding.name != WESTERN and here.score >= BAD):
        return False
    better, enough = best.score - here.score, best.weight >= WEIGHT_MIN_IF_SAID
    if said.encoding.name == WESTERN and best.weight >= WEIGHT_MIN and better >= MUCH_BETTER:
        return True
    return enough and better >= BETTER


def _doubt(body: Evidence, said: Said, sampled: str, here: Reading, others: Sequence[Said]) -> str:
    """What else the bytes may be, "" where there is no doubt."""
    if others and FAULT not in body.read(others[0].encoding)[0]:
        return (
            f"{said.place} says {said.shown}, and {others[0].place} {others[0].shown}: "
            f"it was read as {said.encoding.name}"
        )
    name, best = body.best(sampled)
    if _CONTROLS.search(sampled) is not None:
        clean = [one for one in CANDIDATES if not _CONTROLS.search(body.read(encoding_of(one))[0])]
        of_windows = [one for one in clean if one.startswith("windows-")]
        name, best = body.best(sampled, of_windows or clean)
        is_doubtful = best.score >= here.score - BETTER / 3
    elif said.encoding.name != WESTERN:
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
        f"the bytes are {said.shown}, as {said.place} says, and may be {name}: it was read as {said.encoding.name}; "
        "charset in the definition decides"
    )


def _guessed(body: Evidence) -> Decoded:
    """The charset that the text reads best in."""
    name, best = body.best("", LIKELY)
    rarely, better = body.best("")
    if better.score > best.score and better.weight >= WEIGHT_MIN_IF_RARE:
        name, best = rarely, better
    western = body.read(encoding_of(WESTERN))
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
    said = next((f"{one.place} says {one.shown}, and " for one in body.said), "")
    return made(text, name, f"{said}the page does not say truly what charset it is in; it was read as {name}")


# No Western language has so many letters beyond ASCII in a row; other scripts' bytes, read as windows-1252, do.
_FOREIGN: Final = re.compile("[\xa1-\xff]{4,}")
FOREIGN_MIN: Final = 20  # all umlauts in a row are fewer


def _may_be_western(text: str) -> bool:
    """Whether a text that was read as windows-1252 can be one: not the bytes of another script."""
    foreign = sum(found.end() - found.start() for found in _FOREIGN.finditer(text))
    return foreign < FOREIGN_MIN or foreign < sum(character > "\x7f" for character in text) / 2
