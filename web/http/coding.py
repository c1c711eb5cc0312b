"""Content codings of answers (RFC 9110, 8.4.1): zstd or gzip, whichever ``Accept-Encoding`` prefers; zstd if it does not say.

Event streams are not coded: each of them would hold a compressor's memory for as long as its client waits.
"""

import re
import zlib
from dataclasses import replace
from typing import Final, Literal

from backports import zstd

from web.http.answer import Answer

Coding = Literal["", "zstd", "gzip"]

MIN_BYTES: Final = 1_400  # less fits into one packet anyway
CODED_TYPES: Final = (
    "application/json", "application/problem+json", "application/x-ndjson", "text/csv", "text/html", "text/css", "text/javascript",
)  # fmt: skip
VARY: Final = ("Vary", "Accept-Encoding")
GZIP_LEVEL: Final = 1  # level 6 takes three times as long for a tenth less
ZSTD_LEVEL: Final = 1
GZIP_BITS: Final = 31  # zlib's wbits for gzip's frame with the largest window
CODINGS_MAX: Final = 20  # of an Accept-Encoding header; later ones are ignored

_QUALITY: Final = re.compile(r"q\s*=\s*([01](?:\.\d{0,3})?)\s*", re.ASCII)


def chosen(accept: str) -> Coding:
    """The coding that an Accept-Encoding header prefers, "" for none."""
    if not accept:
        return ""
    qualities: dict[str, float] = {}
    for part in accept.lower().split(",")[:CODINGS_MAX]:
        name, _, parameter = part.partition(";")
        found = _QUALITY.fullmatch(parameter.strip())
        qualities[name.strip()] = float(found[1]) if found else 0.0 if parameter.strip() else 1.0
    others = qualities.get("*", 0.0)
    zstd_quality, gzip_quality = qualities.get("zstd", others), qualities.get("gzip", others)
    best = max(zstd_quality, gzip_quality)
    if best <= 0 or best < qualities.get("identity", 0.0):
        return ""
    return "zstd" if zstd_quality == best else "gzip"


def is_codable(answer: Answer) -> bool:
    """Whether an answer is a text that becomes much smaller."""
    return any(name == "Content-Type" and value.partition(";")[0] in CODED_TYPES for name, value in answer.headers)


def varying(answer: Answer) -> Answer:
    """The answer with the header that tells caches that it has several forms."""
    return replace(answer, headers=[*answer.headers, VARY])


def coded(answer: Answer, coding: Coding) -> Answer:
    """The answer with its body coded."""
    if not coding:
        return answer
    compressor = Compressor(coding)
    return replace(head(answer, coding), body=compressor.add(answer.body) + compressor.end())


def head(answer: Answer, coding: Coding) -> Answer:
    """The answer with the headers of a coded one. Its ETag becomes a weak one, since other bytes have the strong one."""
    if not coding:
        return answer
    headers = [(name, f"W/{value}" if name == "ETag" else value) for name, value in answer.headers]
    return replace(answer, headers=[*headers, ("Content-Encoding", coding)])


class Compressor:
    """Codes a body piece by piece."""

    def __init__(self, coding: Coding) -> None:
        self._zstd = zstd.ZstdCompressor(level=ZSTD_LEVEL) if coding == "zstd" else None
        self._zlib = None if self._zstd else zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_BITS)

    def add(self, data: bytes) -> bytes:
        """What is ready after a piece."""
        if self._zstd is not None:
            return self._zstd.compress(data)
        assert self._zlib is not None
        return self._zlib.compress(data)

    def flush(self) -> bytes:
        """What is needed to read all pieces up to now."""
        if self._zstd is not None:
            return self._zstd.flush(self._zstd.FLUSH_BLOCK)
        assert self._zlib is not None
        return self._zlib.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        """The rest."""
        if self._zstd is not None:
            return self._zstd.flush(self._zstd.FLUSH_FRAME)
        assert self._zlib is not None
        return self._zlib.flush()
