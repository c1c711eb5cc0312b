"""Reads an answer: its heads, the framing of its body (RFC 9112), and what becomes of its connection afterwards.

    GuardedConnection.ask → Response.begin     skips interim answers; reads status, headers, framing
    body.read → Response.piece                 the data of one receive, without chunk framing; trailers are dropped
              → Response.give_up               the rest is not read, and the connection is closed

Heads that break the RFC in harmless ways are read as curl and browsers read them. Heads and bodies that could be read in
two ways end the answer: a wrong length, transfer coding or chunk. Each line has a limit, and so have heads, trailers, chunks and receives.
"""

import http
import http.client
import re
import ssl
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Final

import httptools
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from jobs import blocked
from jobs.errors import ConnectionFailed, TooLarge
from jobs.fetch.exchange import current
from regions.printable import printable

HEADERS_BYTES_MAX: Final = 65_536  # of status lines and headers, with interim answers; trailers have as much again
HEADERS_MAX: Final = 100
INTERIM_MAX: Final = 20  # interim answers (RFC 9110, 15.2)
DIGITS_MAX: Final = 20  # of a Content-Length
CHUNK_LINES_BYTES: Final = 24  # framing of a chunk: a size of at most 16 digits, blanks, line ends
RECEIVE_BYTES: Final = 65_536
# A chunk costs 0.1 µs, a receive 10 µs. Up to these numbers they are free; beyond, they must bring 64 bytes on average.
CHUNKS_FREE: Final = 200_000
RECEIVES_FREE: Final = 20_000
BYTES_EACH: Final = 64
WITHOUT_BODY: Final = (204, 304)

_OWS: Final = " \t"
_BEGINS: Final = b"HTTP/1."
_STATUS: Final = re.compile(r"HTTP/1\.([0-9])[ \t]++([1-9][0-9]{2})(?:[ \t][^\r\n]*+)?\r*+\n")
_HEAD_ENDS: Final = re.compile(rb"\n\r?\n")
_INTERIM: Final = re.compile(rb"HTTP/1\.[0-9][ \t]++1(?!01)")
_LINES: Final = re.compile(r"^([!#$%&'*+.^_`|~0-9A-Za-z-]++):([^\r\n\0]*+)\r?\n", re.MULTILINE)
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSAFE: Final = re.compile(r"[\r\0]")


class Malformed(http.client.HTTPException):
    """The server sent something that is not HTTP, or that could be read in two ways."""


class Headers:
    """The headers of an answer, in their order. Names match in any letter case; values have no blanks around them."""

    __slots__ = ("_found", "_lines")

    def __init__(self, lines: Iterable[tuple[str, str]]) -> None:
        """``lines`` are names and values."""
        self._lines = [(name, value.strip(_OWS)) for name, value in lines]
        self._found: dict[str, list[str]] = {}
        for name, value in self._lines:
            self._found.setdefault(name.lower(), []).append(value)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._found

    def get(self, name: str, default: str = "") -> str:
        """The first value of a name."""
        found = self._found.get(name.lower())
        return found[0] if found else default

    def get_all(self, name: str, default: Iterable[str] = ()) -> list[str]:
        """All values of a name."""
        return self._found.get(name.lower()) or list(default)

    def items(self) -> Iterator[tuple[str, str]]:
        """Name and value of each header line."""
        return iter(self._lines)

    def listed(self, name: str) -> list[str]:
        """The members of a list that may extend over several lines (RFC 9110, 5.6.1), in lower case."""
        found = self._found.get(name.lower())
        return (
            [part for part in (one.strip(_OWS) for one in ",".join(found).lower().split(",")) if part] if found else []
        )


def headers_of(text: str) -> Headers:
    """Parses header lines, each with its line end. Raises TooLarge for more than 100 lines.

    A line that is no header is dropped, with its continuation lines. A bare CR or a NUL counts as a blank (RFC 9112, 2.2
    and 5; RFC 9110, 5.5).
    """
    count = text.count("\n")
    if count > HEADERS_MAX:
        raise TooLarge(f"expected at most {HEADERS_MAX} headers, found more")
    found = _LINES.findall(text)
    return Headers(found if len(found) == count else _odd_lines(text))


def _odd_lines(text: str) -> Iterator[tuple[str, str]]:
    unfolded: list[list[str]] = []
    for line in text.split("\n")[:-1]:
        bare = line.removesuffix("\r")
        if not bare.startswith((" ", "\t")):
            unfolded.append([bare])
        elif unfolded:
            unfolded[-1].append(bare.strip(_OWS))
    for parts in unfolded:
        name, colon, value = _UNSAFE.sub(" ", " ".join(parts)).partition(":")
        if colon and _NAME.fullmatch(name.rstrip(_OWS)):
            yield name.rstrip(_OWS), value


class Response:
    """An answer. With the last piece of the body its connection returns to the pool.

    ``length`` is the number of bytes of the body still to come, or None if unknown.
    """

    def __init__(self, held: Any, method: str, came: bytes = b"") -> None:
        """``held`` is the socket, ``came`` the bytes of the answer that were received already."""
        self._socket, self._method = held, method
        self._data, self._at = came, 0
        self._receives, self._received = 0, len(came)
        self._is_ragged = False  # TLS ended without a close notification
        self._chunks: _Chunks | None = None
        self._is_over = False
        self._owner: tuple[HTTPConnectionPool, HTTPConnection] | None = None
        self.status = 0
        self.headers = Headers(())
        self.length: int | None = None
        self.will_close = False

    def begin(self) -> None:
        """Reads up to the body.

        Raises Malformed, ConnectionFailed, TooLarge, OSError (RemoteDisconnected for no byte at all).
        """
        left = HEADERS_BYTES_MAX
        for _ in range(INTERIM_MAX + 1):
            text = self._head(left)
            left -= len(text)
            found = _STATUS.match(text)
            if found is None:
                raise Malformed(f"expected an HTTP answer, found {_first_line(text.encode('latin-1'))}")
            self.status = int(found[2])
            if self.status >= 200:
                break
            if self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                raise Malformed("expected an answer in HTTP, found another protocol (status 101)")
        else:
            raise TooLarge(f"expected at most {INTERIM_MAX} interim answers, found more")
        self.headers = headers_of(text[found.end() :])
        self._frame(found[1] == "0")

    def _head(self, most: int) -> str:
        """A status line and its headers, with their line ends and without the empty line."""
        looked = self._at
        while (end := _HEAD_ENDS.search(self._data, looked)) is None:
            looked = max(self._at, len(self._data) - 2)
            if len(self._data) - self._at > most:
                raise TooLarge(f"expected at most {HEADERS_BYTES_MAX} bytes of headers, found more")
            came = self._receive(RECEIVE_BYTES)
            if not came:
                if not self._data:
                    raise http.client.RemoteDisconnected("closed without an answer")
                current().check()
                raise ConnectionFailed("the headers were cut short")
            self._data = self._data + came if self._data else came
            begin = self._data[self._at : self._at + len(_BEGINS)]
            if not _BEGINS.startswith(begin):  # a server of another protocol may wait for us to speak
                raise Malformed(f"expected an HTTP answer, found {_first_line(self._data[self._at :])}")
        text = self._data[self._at : end.start() + 1]
        if len(text) > most:
            raise TooLarge(f"expected at most {HEADERS_BYTES_MAX} bytes of headers, found more")
        self._at = end.end()
        return text.decode("latin-1")

    def _frame(self, is_old: bool) -> None:
        """Finds out how the body ends (RFC 9112, 6.3) and whether the connection can be used again (9.3)."""
        headers = self.headers
        options = headers.listed("connection")
        self.will_close = "close" in options or (is_old and "keep-alive" not in options)
        codings = headers.listed("transfer-encoding")
        if self._method == "HEAD" or self.status in WITHOUT_BODY:
            self.length = 0
            self.will_close = self.will_close or bool(codings)  # some servers still send the chunk of an empty body
        elif self._method == "CONNECT" and self.status < 300:
            self.length = 0
        elif codings and [one for one in codings if one != "identity"]:
            if codings[-1] != "chunked" or any(one != "identity" for one in codings[:-1]):
                found = printable(", ".join(codings), 80)
                raise Malformed(f"expected chunked as the only transfer coding, found {found}")
            self._chunks = _Chunks()
            self.will_close = self.will_close or is_old or "content-length" in headers
        else:
            self.length = self._announced()
            self.will_close = self.will_close or self.length is None

    def _announced(self) -> int | None:
        """The Content-Length, or None. Raises Malformed for several different ones, or when it is no number."""
        lines = self.headers.get_all("content-length")
        if not lines:
            return None
        found = {part.strip(_OWS) for line in lines for part in line.split(",")}
        text = found.pop()
        if found or not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
            raise Malformed(f"expected one Content-Length, found {printable(', '.join(lines), 80)}")
        return int(text)

    def belongs_to(self, pool: HTTPConnectionPool, connection: HTTPConnection) -> None:
        """Sets the pool to which the connection returns once the body is read."""
        self._owner = pool, connection
        if self.length == 0:
            self._end()

    def piece(self, most: int) -> bytes:
        """The body's bytes from one receive, at most ``most`` unless they come in chunks; b"" at the end.

        Raises IncompleteRead for a body that is cut short, Malformed, TooLarge, OSError.
        """
        if self._is_over:
            return b""
        if self._chunks is not None:
            return self._unchunked()
        found = self._some(most if self.length is None else min(most, self.length))
        if self.length is not None:
            self.length -= len(found)
            if not found:
                raise http.client.IncompleteRead(b"", self.length)
            if self.length == 0:
                self._end()
        elif not found:
            if self._is_ragged:
                raise http.client.IncompleteRead(b"")
            self._end()
        return found

    def give_up(self) -> None:
        """Leaves the rest of the body unread, which closes the connection. Does nothing after the end of the body."""
        self.will_close = True
        self._end()

    def _end(self) -> None:
        """Returns the connection to its pool. It stays open only if the next bytes must belong to the next answer."""
        if self._is_over:
            return
        self._is_over = True
        if self._owner is None:
            return
        (pool, connection), self._owner = self._owner, None
        if self.will_close or self.rest or (self._chunks is not None and self._chunks.has_more):
            connection.close()
        pool._put_conn(connection)  # noqa: SLF001 - as urllib3's own responses do

    @property
    def received_bytes(self) -> int:
        """The bytes of this answer so far, as they came: heads, and the body with its codings."""
        return self._received

    @property
    def rest(self) -> bytes:
        """Bytes received after the answer. After a CONNECT, these come from the target."""
        return self._data[self._at :]

    def _receive(self, most: int) -> bytes:
        """Receives once; b"" at the end of the stream."""
        self._receives += 1
        if self._receives - RECEIVES_FREE > self._received // BYTES_EACH:
            raise TooLarge(_too_many("receives", self._receives, self._received))
        me = threading.get_ident()
        blocked.threads.add(me)
        try:
            found: bytes = self._socket.recv(most)
        except ssl.SSLEOFError:
            self._is_ragged = True
            return b""
        finally:
            blocked.threads.discard(me)
        self._received += len(found)
        return found

    def _some(self, most: int) -> bytes:
        """Bytes that were received before, or else the next ones."""
        data, at = self._data, self._at
        if at >= len(data):
            data, at = self._receive(RECEIVE_BYTES), 0
            if len(data) <= most:
                self._data, self._at = b"", 0
                return data
            self._data = data
        found = data[at : at + most]
        self._at = at + len(found)
        return found

    def _unchunked(self) -> bytes:
        """The chunks' data from one receive, or from the first further one that brings any."""
        chunks = self._chunks
        assert chunks is not None
        while True:
            came = self.rest or self._receive(RECEIVE_BYTES)
            self._data, self._at = b"", 0
            if not came:
                raise http.client.IncompleteRead(b"")
            found = chunks.data(came)
            if chunks.is_over:
                self._end()
            if found or chunks.is_over:
                return found


class _Chunks:
    """Parses a chunked body (RFC 9112, 7.1) with llhttp, which gets a made-up head and then the body as received."""

    HEAD: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

    def __init__(self) -> None:
        self._found: list[bytes] = []
        self.on_body = self._found.append
        self.is_over = False
        self.has_more = False  # bytes came after the end
        self._count = self._size = self._framing = 0
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)  # some sites pad the size
        self._parser.feed_data(self.HEAD)

    def on_message_complete(self) -> None:
        """The parser calls this after the last chunk and its trailers."""
        self.is_over = True

    def data(self, came: bytes) -> bytes:
        """The data of the chunks in these bytes. Raises Malformed, and TooLarge for too many or too small chunks."""
        try:
            self._parser.feed_data(came)
        except httptools.HttpParserError as error:
            if not self.is_over:
                raise Malformed(f"expected chunks, found other data: {error}") from error
            self.has_more = True  # after "Connection: close" llhttp accepts nothing
        found = self._found[0] if len(self._found) == 1 else b"".join(self._found)
        self._count += len(self._found)
        self._found.clear()
        self._size += len(found)
        self._framing += len(came) - len(found)
        if self._count - CHUNKS_FREE > self._size // BYTES_EACH:
            raise TooLarge(_too_many("chunks", self._count, self._size))
        if self._framing - CHUNK_LINES_BYTES * self._count > HEADERS_BYTES_MAX:
            raise TooLarge(f"expected at most {HEADERS_BYTES_MAX} bytes of trailers and chunk extensions, found more")
        return found


def is_answer(data: bytes) -> bool:
    """Whether these bytes contain the beginning of an answer that is not an interim one."""
    at = 0
    while _INTERIM.match(data, at) and (end := _HEAD_ENDS.search(data, at)):
        at = end.end()
    return len(data) - at >= len("HTTP/1.1 200") and not _INTERIM.match(data, at)


def _first_line(data: bytes) -> str:
    """The first line of some bytes, cut and escaped for messages."""
    return f'"{printable(data[:81].partition(bytes([10]))[0].decode("latin-1"), 80)}"'


def _too_many(what: str, count: int, size: int) -> str:
    return f"expected {what} of at least {BYTES_EACH} bytes on average, found {count} for {size} bytes"
