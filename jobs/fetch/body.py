"""Receives a body piece by piece and unpacks its codings, never more of it than the caps allow.

    read → _received (one piece a receive) → _capped → unpack of the outermost coding → _capped → … → joined

Each stage is an iterator over pieces of at most ``PIECE_BYTES``, so that a decompression bomb is refused while it is small.
For each piece of each stage, deadline and cancel are checked, and memory is reserved (jobs.memory) for the body and for the
window of each unpacker that has one. Each unpacker knows whether its stream is complete. An incomplete one was cut short,
even when the Content-Length was right.
"""

import io
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

import brotli  # type: ignore[import-untyped]
from backports import zstd

from jobs import memory
from jobs.errors import ConnectionFailed, DecodeFailed, TooLarge
from jobs.fetch.answer import Response
from jobs.fetch.exchange import Exchange

PIECE_BYTES: Final = 65_536
RECEIVED_BYTES_MAX: Final = 1_000_000  # kept of a body that can't be read, for operators to look at
CODINGS_MAX: Final = 3
ZSTD_WINDOW_LOG_MAX: Final = 23  # 8 MB, RFC 9659
WINDOW_BYTES: Final = {"br": 16_777_216, "zstd": 2**ZSTD_WINDOW_LOG_MAX}  # memory that an unpacker needs
GROWN: Final = 9 / 8  # BytesIO allocates an eighth more than it needs

Pieces = Iterator[bytes]
Unpacking = Generator[bytes, None, bool]  # returns whether the stream came to its end


def read(response: Response, exchange: Exchange, max_bytes: int, received: list[bytes]) -> bytes:
    """The whole body, unpacked. ``max_bytes`` caps the received and the unpacked bytes, each by itself.

    The first received pieces are appended to ``received``, so that a body that can't be read can be looked at.

    Raises TooLarge, DecodeFailed (the coding is wrong), ConnectionFailed (cut short), Cancelled, TimedOut, and what
    sockets, ``ssl`` and ``http.client`` raise for a connection that breaks.
    """
    announced = response.length
    if announced is not None and announced > max_bytes:
        raise TooLarge(f"expected at most {max_bytes} bytes, found a Content-Length of {announced}")
    held = memory.held()
    pieces = _capped(_received(response, received), exchange, max_bytes, "received")
    pieces = _reserved(pieces, exchange, RECEIVED_BYTES_MAX, 1)
    for coding in reversed(codings(", ".join(response.headers.get_all("content-encoding", ())))):
        unpacked = _capped(_unpacked(coding, pieces), exchange, max_bytes, "unpacked")
        pieces = _reserved(unpacked, exchange, WINDOW_BYTES[coding], 1) if coding in WINDOW_BYTES else unpacked
    body = io.BytesIO()
    for piece in _reserved(pieces, exchange, max_bytes, GROWN):
        body.write(piece)
    exchange.check()  # for a body without a length, a socket that was cut looks like the end
    memory.keep(held + int(body.tell() * GROWN))
    return body.getvalue()


def codings(header: str) -> list[str]:
    """The codings of a Content-Encoding header, in the order of their application. Raises DecodeFailed."""
    found = [part for part in (part.strip().lower() for part in header.split(",")) if part not in ("", "identity")]
    if len(found) > CODINGS_MAX:
        raise DecodeFailed(f"expected at most {CODINGS_MAX} content codings, found {len(found)}")
    for coding in found:
        if coding not in UNPACKERS:
            raise DecodeFailed(f'expected a content coding of {", ".join(sorted(UNPACKERS))}, found "{coding[:40]}"')
    return found


def _received(response: Response, received: list[bytes]) -> Pieces:
    """The bytes of each receive."""
    left = RECEIVED_BYTES_MAX
    while piece := response.piece(PIECE_BYTES):
        if left > 0:
            received.append(piece)
            left -= len(piece)
        yield piece


def _capped(pieces: Pieces, exchange: Exchange, max_bytes: int, what: str) -> Pieces:
    total = 0
    for piece in pieces:
        exchange.check()
        total += len(piece)
        if total > max_bytes:
            raise TooLarge(f"expected at most {max_bytes} bytes, found more when it was {what}")
        yield piece


def _reserved(pieces: Pieces, exchange: Exchange, most: int, factor: float) -> Pieces:
    """The same pieces. Reserves memory for each before it is passed on, up to ``most`` bytes in total."""
    total = 0
    for piece in pieces:
        if total < most:
            total += len(piece)
            memory.reserve(int(len(piece) * factor), f"a body of {total} bytes so far", exchange.paused)
        yield piece


def _unpacked(coding: str, pieces: Pieces) -> Pieces:
    """A stream unpacked by its coding. In any coding, an empty stream is an empty body."""
    first = next((piece for piece in pieces if piece), b"")
    if not first:
        return
    try:
        if not (yield from UNPACKERS[coding](first, pieces)):
            raise ConnectionFailed(f"the body was cut short: its {coding} stream has no end")
    except (zlib.error, brotli.error, zstd.ZstdError) as error:
        raise DecodeFailed(f"expected a body in {coding}, found other data: {error}") from error


def _chain(first: bytes, rest: Pieces) -> Pieces:
    yield first
    yield from rest


def _gzip(first: bytes, rest: Pieces) -> Unpacking:
    """RFC 1952: one or more members. Other bytes after the last member are padding."""
    engine = zlib.decompressobj(wbits=31)
    for piece in _chain(first, rest):
        data = piece
        while data:
            if engine.eof:
                if data[:1] != b"\x1f":
                    return True
                engine = zlib.decompressobj(wbits=31)
            yield from _inflated(engine, data)
            data = engine.unused_data
    return bool(engine.eof)


def _deflate(first: bytes, rest: Pieces) -> Unpacking:
    """RFC 1950, or raw RFC 1951, which some servers send; a first byte of 0x_8 tells the former."""
    engine = zlib.decompressobj(wbits=15 if first[0] & 0x0F == 8 and first[0] >> 4 <= 7 else -15)
    for piece in _chain(first, rest):
        if not engine.eof:
            yield from _inflated(engine, piece)
    return bool(engine.eof)


def _inflated(engine: Any, data: bytes) -> Pieces:
    """Bytes inflated by zlib, piece by piece. After the end of the stream the rest is in ``unused_data``."""
    while True:
        piece = engine.decompress(data, PIECE_BYTES)
        yield piece
        data = engine.unconsumed_tail
        if engine.eof or (not data and len(piece) < PIECE_BYTES):
            return


def _brotli(first: bytes, rest: Pieces) -> Unpacking:
    """RFC 7932."""
    engine = brotli.Decompressor()
    for piece in _chain(first, rest):
        if engine.is_finished():
            break
        made = engine.process(piece, output_buffer_limit=PIECE_BYTES)
        yield made
        # brotli says that it can accept more data while it still holds output beyond the limit.
        while len(made) >= PIECE_BYTES or not engine.can_accept_more_data():
            made = engine.process(b"", output_buffer_limit=PIECE_BYTES)
            yield made
    return bool(engine.is_finished())


def _zstd(first: bytes, rest: Pieces) -> Unpacking:
    """RFC 8878: one or more frames."""
    options = {int(zstd.DecompressionParameter.window_log_max): ZSTD_WINDOW_LOG_MAX}
    engine = zstd.ZstdDecompressor(options=options)
    for piece in _chain(first, rest):
        data = piece
        while data or not (engine.needs_input or engine.eof):
            if engine.eof:
                engine = zstd.ZstdDecompressor(options=options)
            yield engine.decompress(data, PIECE_BYTES)
            data = engine.unused_data if engine.eof else b""
    return bool(engine.eof)


UNPACKERS: Final[dict[str, Callable[[bytes, Pieces], Unpacking]]] = {
    "gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate, "br": _brotli, "zstd": _zstd,
}  # fmt: skip
ACCEPTED: Final = "gzip, deflate, br, zstd"
