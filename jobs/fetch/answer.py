"""An answer as it comes: its heads, how its body is framed (RFC 9112), and where its connection goes afterwards.

    GuardedConnection.ask → Response.begin     interim answers skipped; status, headers, framing
    body.read → Response.piece                 what one receive brings, chunks joined; the trailers are read and dropped
              → Response.give_up               what is left is not read: nobody else may have the connection

Sites write heads that break the RFC in harmless ways, and are read as curl and browsers read them. What could be read in
two ways ends the answer: a length, a transfer coding, a chunk that is not what it says. Each line has a bound, and so has
what an answer costs besides its body: heads, trailers, chunks and receives.
"""

import http
import http.client
import re
import ssl
from collections.abc import Iterable, Iterator
from typing import Any, Final

import httptools
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from jobs.errors import ConnectionFailed, TooLarge
from jobs.fetch.exchange import current
from regions.printable import printable

HEADERS_BYTES_MAX: Final = 65_536  # status lines and headers, interim answers included; trailers for themselves
HEADERS_MAX: Final = 100
INTERIM_MAX: Final = 20  # answers before the answer (RFC 9110, 15.2)
DIGITS_MAX: Final = 20  # of a Content-Length
CHUNK_LINES_BYTES: Final = 24  # what frames a chunk: a size of at most 16 digits, blanks, line ends
RECEIVE_BYTES: Final = 65_536
# A chunk costs a tenth of a microsecond, a receive ten: so many are free, and further ones have to bring 64 bytes each.
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
    """What came is no answer in HTTP, or could be read in two ways."""


class Headers:
    """The headers of an answer in their order, found in any letter case; values without the blanks around them."""

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
        """Every value of a name."""
        return self._found.get(name.lower()) or list(default)

    def items(self) -> Iterator[tuple[str, str]]:
        """Names and values, one a line."""
        return iter(self._lines)

    def listed(self, name: str) -> list[str]:
        """The members of a list that may stand in several lines (RFC 9110, 5.6.1), in lower case."""
        found = self._found.get(name.lower())
        return (
            [part for part in (one.strip(_OWS) for one in ",".join(found).lower().split(",")) if part] if found else []
        )


def headers_of(text: str) -> Headers:
    """The headers that lines with their ends hold. Raises TooLarge for more than 100 lines.

    A line that is no header is left out, with the lines that continue it; a bare CR and a NUL are blanks (RFC 9112, 2.2
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
    """An answer; its connection goes back to its pool with the last piece of the body.

    ``length`` is how many bytes of the body are still to come, None where that is not known.
    """

    def __init__(self, held: Any, method: str, came: bytes = b"") -> None:
        """``held`` is the socket, ``came`` what was received of it already."""
        self._socket, self._method = held, method
        self._data, self._at = came, 0
        self._receives = self._received = 0
        self._is_ragged = False  # TLS ended without saying so
        self._chunks: _Chunks | None = None
        self._is_over = False
        self._owner: tuple[HTTPConnectionPool, HTTPConnection] | None = None
        self.status = 0
        self.headers = Headers(())
        self.length: int | None = None
        self.will_close = False

    def begin(self) -> None:
        """Reads up to the body. Raises Malformed, ConnectionFailed, TooLarge, OSError (RemoteDisconnected where nothing came)."""
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
        """A status line and its headers, with the ends of the lines and without the empty one."""
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
            if not _BEGINS.startswith(begin):  # who speaks something else may wait for us
                raise Malformed(f"expected an HTTP answer, found {_first_line(self._data[self._at :])}")
        text = self._data[self._at : end.start() + 1]
        if len(text) > most:
            raise TooLarge(f"expected at most {HEADERS_BYTES_MAX} bytes of headers, found more")
        self._at = end.end()
        return text.decode("latin-1")

    def _frame(self, is_old: bool) -> None:
        """How the body ends (RFC 9112, 6.3), and whether the connection can be used again (9.3)."""
        headers = self.headers
        options = headers.listed("connection")
        self.will_close = "close" in options or (is_old and "keep-alive" not in options)
        codings = headers.listed("transfer-encoding")
        if self._method == "HEAD" or self.status in WITHOUT_BODY:
            self.length = 0
            self.will_close = self.will_close or bool(codings)  # some send an empty body's chunk all the same
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
        """The Content-Length, None where there is none. Raises Malformed for what is no length, or several."""
        lines = self.headers.get_all("content-length")
        if not lines:
            return None
        found = {part.strip(_OWS) for line in lines for part in line.split(",")}
        text = found.pop()
        if found or not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
            raise Malformed(f"expected one Content-Length, found {printable(', '.join(lines), 80)}")
        return int(text)

    def belongs_to(self, pool: HTTPConnectionPool, connection: HTTPConnection) -> None:
        """Where its connection goes when the body was read."""
        self._owner = pool, connection
        if self.length == 0:
            self._end()

    def piece(self, most: int) -> bytes:
        """What one receive brings of the body, at most ``most`` bytes where those are as many as one may; b"" at its end.

        Raises IncompleteRead where it is cut short, Malformed, TooLarge, OSError.
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
        """What is left of the body will not be read. Nothing, where it was read to its end."""
        self.will_close = True
        self._end()

    def _end(self) -> None:
        """Gives the connection back, open where the next answer can only be the next request's."""
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
    def rest(self) -> bytes:
        """What came after the answer; of a CONNECT's, what is not the proxy's any more."""
        return self._data[self._at :]

    def _receive(self, most: int) -> bytes:
        """What one receive brings; b"" at the end of the stream."""
        self._receives += 1
        if self._receives - RECEIVES_FREE > self._received // BYTES_EACH:
            raise TooLarge(_too_many("receives", self._receives, self._received))
        try:
            found: bytes = self._socket.recv(most)
        except ssl.SSLEOFError:
            self._is_ragged = True
            return b""
        self._received += len(found)
        return found

    def _some(self, most: int) -> bytes:
        """What was received before, or comes now."""
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
        """The data of the chunks that one receive brings; where it brings none, of the next one."""
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
    """What frames a chunked body (RFC 9112, 7.1), read by llhttp: it gets a head of ours and then the body as it comes."""

    HEAD: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

    def __init__(self) -> None:
        self._found: list[bytes] = []
        self.on_body = self._found.append
        self.is_over = False
        self.has_more = False  # bytes came after the end
        self._count = self._size = self._framing = 0
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)  # some sites pad it
        self._parser.feed_data(self.HEAD)

    def on_message_complete(self) -> None:
        """The last chunk and its trailers were read."""
        self.is_over = True

    def data(self, came: bytes) -> bytes:
        """The data of chunks in some bytes. Raises Malformed, and TooLarge where chunks cost more than they bring."""
        try:
            self._parser.feed_data(came)
        except httptools.HttpParserError as error:
            if not self.is_over:
                raise Malformed(f"expected chunks, found what are none: {error}") from error
            self.has_more = True  # "Connection: close" lets nothing follow
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
    """Whether an answer that is no interim one begins in what came."""
    at = 0
    while _INTERIM.match(data, at) and (end := _HEAD_ENDS.search(data, at)):
        at = end.end()
    return len(data) - at >= len("HTTP/1.1 200") and not _INTERIM.match(data, at)


def _first_line(data: bytes) -> str:
    """The beginning of a line, as messages may show it."""
    return f'"{printable(data[:81].partition(bytes([10]))[0].decode("latin-1"), 80)}"'


def _too_many(what: str, count: int, size: int) -> str:
    return f"expected {what} of at least {BYTES_EACH} bytes in the mean, found {count} for {size} bytes"
