"""Collects the bytes of one connection's next request until it is whole. It reads no socket and no clock.

    feed(bytes) ─┬─ None: more has to come
                 ├─ Received: a whole request; bytes after it wait for the next ``feed``
                 └─ Malformed: not HTTP, or HTTP that two readers could read in two ways; the connection ends

llhttp (in httptools) parses heads and the framing of chunks in strict mode. It refuses a folded line, a blank before a colon,
a bare CR or LF, a control character, a second length, and a length with a sign. This module checks the rest (RFC 9112): the
version, exactly one Host that can be read, ``Transfer-Encoding`` as exactly ``chunked``, a request line with single blanks.
llhttp gets only one request at a time, since it does not tell where it stopped.
"""

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

import httptools

HEAD_BYTES_MAX: Final = 65_536  # the request line and all fields
FIELDS_MAX: Final = 100  # each costs the inlet's thread time
BLANK_LINES_BYTES_MAX: Final = 16  # before a request line
FRAMING_BYTES_MAX: Final = 65_536  # sizes, extensions, line ends and trailers of a chunked body; each chunk costs time
VERSIONS: Final = ("1.0", "1.1")

_HEAD_END: Final = b"\r\n\r\n"
_BLANK_LINES: Final = re.compile(rb"(?:\r\n)*")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#@\s]+)((?:[/?].*)?)", re.IGNORECASE)
# RFC 3986, 3.2.2 and 3.2.3: an address in brackets, or a name that may be empty; then a port that may be empty.
_HOST: Final = re.compile(
    rb"(?:\[(?:[0-9A-Fa-f:.]+|[vV][0-9A-Fa-f]+\.[\w.~!$&'()*+,;=:-]+)\]|(?:[\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
)
_SLASH: Final = re.compile(rb"%2f", re.IGNORECASE)  # stays escaped, since it separates no segments


class Malformed(Exception):  # noqa: N818
    """The bytes are not HTTP that this server accepts; ``status`` and ``detail`` are for the answer."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Received:
    """A whole request. ``body`` is None if it is longer than its call takes; then it was not read to its end."""

    __slots__ = ("body", "fields", "is_http11", "keep", "method", "target")

    def __init__(self, method: str, target: bytes, fields: dict[bytes, bytes], *, is_http11: bool, keep: bool) -> None:
        self.method, self.target, self.fields = method, target, fields
        self.is_http11, self.keep = is_http11, keep
        self.body: bytes | None = b""

    def header(self, name: str) -> str:
        """A field, empty when it was not sent."""
        return self.fields.get(name.title().encode("ascii"), b"").decode("latin-1")

    def parts(self) -> tuple[bytes, bytes]:
        """Returns (the path, unescaped except for slashes; the query as it came)."""
        path, _, query = self.target.partition(b"?")
        if b"%" in path:
            path = b"%2F".join(unquote_to_bytes(part) for part in _SLASH.split(path))
        return path, query


class Receiver:
    """Receives for one connection.

    ``body_bytes_max``: (method, path) → the longest body that this call takes. ``refuses``: whether a head is refused
    whatever its body is; it is asked only if the client waits for an answer before it sends the body.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_chunk_left",
        "_fields",
        "_head_bytes",
        "_is_complete",
        "_is_last_chunk",
        "_is_refused",
        "_keep",
        "_length",
        "_limit",
        "_limit_of",
        "_parser",
        "_received",
        "_refuses",
        "_searched",
        "_target",
        "_used",
        "wants_continue",
    )

    def __init__(
        self, body_bytes_max: Callable[[str, str], int], refuses: Callable[[Received], bool] = lambda _: False
    ) -> None:
        self._limit_of, self._refuses = body_bytes_max, refuses
        self._buffer = bytearray()
        self._searched = 0  # bytes of an incomplete head that hold no end
        self._received: Received | None = None  # the request, once its head is whole
        self.wants_continue = False  # the client waits for "100 Continue" before it sends the body
        # About the request that is being received:
        self._parser: httptools.HttpRequestParser | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._target = b""
        self._keep = False
        self._length: int | None = 0  # of the body; None if it is chunked
        self._limit = 0  # the longest body that the call takes
        self._head_bytes = 0  # of its head, while the body is received
        self._body = bytearray()  # the data of its chunks
        self._chunk_left = 0  # bytes of the current chunk, with its line end
        self._used = 0  # bytes of framing, up to FRAMING_BYTES_MAX
        self._is_last_chunk = self._is_complete = False
        self._is_refused = False  # the client waits for "100 Continue" and will not get it

    @property
    def held(self) -> int:
        """How many bytes are held in memory."""
        return len(self._buffer) + len(self._body) + self._head_bytes

    @property
    def has_head(self) -> bool:
        """Whether the head is whole and the body is not."""
        return self._received is not None

    def feed(self, data: bytes) -> Received | None:
        """Adds bytes; returns the request once it is whole. Without bytes it looks at those after the request before."""
        buffer = self._buffer
        buffer += data
        if self._received is None:
            if self._searched == 0:
                self._drop_blank_lines()
                if buffer == b"\r":  # the first half of another blank line
                    return None
            end = buffer.find(_HEAD_END, max(0, self._searched - 3))
            if end < 0 or end > HEAD_BYTES_MAX:
                self._searched = len(buffer)
                if len(buffer) > HEAD_BYTES_MAX:
                    status = 431 if b"\r\n" in buffer[:HEAD_BYTES_MAX] else 414
                    raise Malformed(status, f"expected a request line and fields of {HEAD_BYTES_MAX} bytes at most")
                return None
            if buffer.count(b"\n", 0, end) > FIELDS_MAX:
                raise Malformed(431, f"expected {FIELDS_MAX} fields at most")
            head = bytes(buffer[: end + 4])
            del buffer[: end + 4]
            self._received = self._head(head)
            self._head_bytes = len(head)
        return self._rest(self._received)

    def _drop_blank_lines(self) -> None:
        """Drops blank lines before a request line: some clients end a body with one (RFC 9112, 2.2)."""
        found = _BLANK_LINES.match(self._buffer)
        if found is not None and found.end():
            if found.end() > BLANK_LINES_BYTES_MAX:
                raise Malformed(400, "expected a request line, found blank lines")
            del self._buffer[: found.end()]

    def _rest(self, received: Received) -> Received | None:
        """Takes the bytes of the body that are there."""
        if self._is_refused:
            is_taken = is_whole = False
        elif self._length is not None:
            is_whole, is_taken = len(self._buffer) >= self._length, self._length <= self._limit
            if is_taken and is_whole and self._length:
                received.body = bytes(self._buffer[: self._length])
                del self._buffer[: self._length]
        else:
            is_taken = self._chunks()
            is_whole = self._is_complete
            if is_taken and is_whole:
                received.body = bytes(self._body)
        if not is_taken:
            received.body, received.keep = None, False
            self._buffer.clear()
        elif not is_whole:
            return None
        # An idle connection must hold no memory: it would not be counted.
        self._searched, self._received, self._parser, self._head_bytes = 0, None, None, 0
        self._fields, self._target, self._body = [], b"", bytearray()
        self.wants_continue = False
        return received

    def _head(self, head: bytes) -> Received:
        """Parses a whole head, and finds out how long the body is."""
        self._keep = self._is_complete = self._is_last_chunk = self._is_refused = False
        self._chunk_left = self._used = 0
        self._parser = parser = httptools.HttpRequestParser(self)
        self._feed(head)
        version = parser.get_http_version()
        if version not in VERSIONS:
            raise Malformed(505, f"expected HTTP/1.1, found HTTP/{version}")
        method = parser.get_method().decode("ascii")
        if not head.startswith(b"%b %b HTTP/" % (method.encode(), self._target)):
            raise Malformed(400, "expected a request line with single blanks between its parts")
        is_http11 = version == "1.1"
        fields, self._length = _checked(self._fields, is_http11=is_http11)
        absolute = _ABSOLUTE.fullmatch(self._target)
        if absolute is not None:  # its host counts, whatever Host says (RFC 9112, 3.2.2)
            _check_host(absolute[1])
            fields[b"Host"] = absolute[1]
            self._target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
        if not self._target.startswith(b"/") or b"#" in self._target:
            raise Malformed(400, "expected a request target that is a path or an http address, with a query or none")
        received = Received(method, self._target, fields, is_http11=is_http11, keep=self._keep)
        if self._length != 0:
            self._limit = self._limit_of(method, received.parts()[0].decode("latin-1"))
            if is_http11 and fields.get(b"Expect", b"").lower() == b"100-continue" and not self._buffer:
                is_taken = 0 < self._limit >= (self._length or 0)
                self.wants_continue = is_taken and not self._refuses(received)
                self._is_refused = not self.wants_continue
        else:
            self._limit = 0
        return received

    def _chunks(self) -> bool:
        """Takes the chunks that are there; False when the body is longer than the call takes."""
        buffer, at = self._buffer, 0
        while not self._is_complete:
            if self._chunk_left:
                piece = bytes(buffer[at : at + self._chunk_left])
                if not piece:
                    break
                self._feed(piece)
                self._chunk_left -= len(piece)
                at += len(piece)
                continue
            end = buffer.find(b"\n", at) + 1
            if self._used + (end or len(buffer)) - at > FRAMING_BYTES_MAX:
                raise Malformed(400, f"expected at most {FRAMING_BYTES_MAX} bytes around the chunks of a body")
            if not end:
                break
            line = bytes(buffer[at:end])
            self._feed(line)
            self._used += end - at + 2  # 2 for the line end after the data
            at = end
            if not self._is_last_chunk:
                size = int(line.partition(b";")[0], 16)  # llhttp has checked that these are digits
                if len(self._body) + size > self._limit:
                    return False
                self._is_last_chunk = size == 0
                self._chunk_left = size + 2 if size else 0
        del buffer[:at]
        return True

    def _feed(self, data: bytes) -> None:
        assert self._parser is not None, "the request has begun"
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # the client asks for another protocol; the server stays with HTTP
            pass
        except httptools.HttpParserInvalidMethodError:
            raise Malformed(400, "expected a method that HTTP knows, in capitals, and one blank after it") from None
        except httptools.HttpParserError as error:
            raise Malformed(400, f"this is not HTTP: {error}") from None

    # Callbacks of llhttp.

    def on_url(self, target: bytes) -> None:
        """The request target."""
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field. Trailers, which follow the body, are ignored."""
        if self._received is None:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """The end of a head. Only now does the parser know whether the connection is to be kept."""
        assert self._parser is not None, "it calls"
        self._keep = self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        """A part of a chunk."""
        self._body += piece

    def on_message_complete(self) -> None:
        """The end of a request."""
        self._is_complete = True


def _checked(found: list[tuple[bytes, bytes]], *, is_http11: bool) -> tuple[dict[bytes, bytes], int | None]:
    """Returns (the fields by name, ``Like-This``; the length of the body, None if chunked). Repeated fields are joined by commas.

    A name with an underscore is left out, as other servers do: WSGI would take it for the same name with a hyphen.
    """
    fields: dict[bytes, bytes] = {}
    hosts = 0
    for name, value in found:
        if b"_" in name:
            continue
        key = name.title()
        text = value.strip(b" \t")
        hosts += key == b"Host"
        fields[key] = b"%b, %b" % (fields[key], text) if key in fields else text
    if hosts > 1 or (is_http11 and not hosts):
        raise Malformed(400, f"expected one Host, found {hosts or 'none'}")
    if hosts:
        _check_host(fields[b"Host"])
    coding = fields.get(b"Transfer-Encoding")
    if coding is None:
        return fields, int(fields.get(b"Content-Length", b"0"))  # llhttp has checked that it is one field of digits
    if not is_http11 or coding.lower() != b"chunked" or b"Content-Length" in fields:
        raise Malformed(400, "expected Transfer-Encoding to be chunked, in HTTP/1.1 and without a Content-Length")
    return fields, None


def _check_host(host: bytes) -> None:
    """Raises ``Malformed`` if a Host can't be read (RFC 9112, 3.2). Whether the gateway has that name is not judged here."""
    if _HOST.fullmatch(host) is None:
        raise Malformed(400, f"expected a Host like example.org:8080, found {host[:100].decode('latin-1')!r}")
