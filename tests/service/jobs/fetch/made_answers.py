"""Answers as bytes, made from a seed: odd header lines, framings, codings and redirects, some of them cut."""

import gzip
import random
import zlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """``kinds`` name its oddities; ``hangs_up`` closes the connection after ``wire``."""

    number: int
    wire: bytes
    hangs_up: bool
    kinds: tuple[str, ...]

    @property
    def path(self) -> str:
        return f"/{self.number}/d/start"


# Kinds of generated answers. One that begins with a dot is not odd.

ODD_LINES = {
    "name": [b"X-\xdc: 1", b"X Y: 1", b"foo", b": 1", b"\x01: 1"],
    "blank before colon": [b"X-Blank : 1"],
    "bare CR": [b"X: a\rX-Evil: 1", b"X: 1\r"],
    "NUL": [b"X: a\0b"],
    "fold": [b"X: a\r\n b", b"X:\r\n\tb\r\n c"],
}
LENGTHS = {
    ".length": [b"Content-Length: %d"],
    "length twice": [b"Content-Length: %d\r\nContent-Length: %d", b"Content-Length: %d, %d"],
    "lengths differ": [b"Content-Length: %d\r\nContent-Length: 1%d", b"Content-Length: %d, 1%d"],
    "no length": [
        b"Content-Length: +%d",
        b"Content-Length: -%d",
        b"Content-Length: 0x%d",
        b"Content-Length: five",
        b"Content-Length:",
    ],
}
CODINGS = {
    ".chunked": [b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked"],
    "coding list": [
        b"Transfer-Encoding: chunked ",
        b"Transfer-Encoding: chunked\t",
        b"Transfer-Encoding: ,chunked,",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    ],
    "coding folded": [b"Transfer-Encoding:\r\n chunked"],
    "coding and length": [
        b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked",
    ],
    "other coding": [
        b"Transfer-Encoding: chunked, gzip",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked;q=1",
        b"Transfer-Encoding: foo",
    ],
}
LOCATIONS = {
    ".location": [
        "/N/x",
        "/N/x?a=b&c=d",
        "x",
        "../x",
        "./x",
        "?q=1",
        "O/N/x",
        "//H/N/x",
        "/N/x#part",
        "/N/a%20b",
        "/N//x",
    ],
    "dots": ["/N/a/../b", "../../../N/x", "/N/./x", "/N/%2e%2e/x"],
    "characters": ["/N/a b", "/N/\xe9", "/N/ü", "/N/a|b", "/N/[x]", '/N/"x"'],
    "blanks": [" /N/x", "/N/x ", "\t/N/x"],
    "scheme": ["HTTP://H/N/x", "http:/N/x", "http:x", "\\N\\x"],
    "no location": ["", "http://", "http://[/", "ftp://H/x", "javascript:1", "data:,x"],
}


class Maker:
    """Cases of a seed."""

    def __init__(self, seed: int, origin: str) -> None:
        self._random, self._origin = random.Random(seed), origin

    def case(self, number: int) -> Case:
        """The next one."""
        self.kinds: list[str] = []
        if self._random.random() < 0.15:
            return self._redirect(number)
        body = b" ".join(
            b"%d.%d" % (number, self._random.randrange(10**6)) for _ in range(self._random.choice([1, 5, 900]))
        )
        status = self._random.choice([200] * 12 + [404, 500, 204, 304])
        coding = self._random.choice([""] * 4 + ["gzip", "deflate"])
        sent = {"gzip": gzip.compress, "deflate": zlib.compress}.get(coding, bytes)(body)
        head = [b"HTTP/1.1 %d Whatever" % status]
        if self._rarely(0.06):
            head = [b"HTTP/1.0 %d Whatever" % status]
            self.kinds.append("1.0")
        head += [b"X-%d: %d" % (one, number) for one in range(self._random.randrange(5))]
        head += self._odd()
        if coding:
            head.append(b"Content-Encoding: " + coding.encode())
        framing, framed, ends = self._framed(sent)
        head += [*framing, b"X-Last: %d" % number, b"", framed]
        wire = self._interim() + b"\r\n".join(head)
        if self._rarely(0.05):
            wire = wire.replace(b"\r\n", b"\n", wire.count(b"\r\n") if status < 0 else head.index(b""))
            self.kinds.append("LF")
        if status in (204, 304):
            self.kinds.append("no body")
        if self._rarely(0.1):
            wire = wire[: self._random.randrange(len(wire))]
            self.kinds.append("cut")
            ends = True
        elif self._rarely(0.05):
            wire += b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"
            self.kinds.append("more")
        return Case(number, wire, ends, tuple(sorted(self.kinds)))

    def _rarely(self, share: float) -> bool:
        return self._random.random() < share

    def _one(self, kinds: dict[str, list[bytes]]) -> bytes:
        kind = self._random.choice(list(kinds))
        self.kinds.append(kind)
        return self._random.choice(kinds[kind])

    def _odd(self) -> list[bytes]:
        return [self._one(ODD_LINES)] if self._rarely(0.25) else []

    def _interim(self) -> bytes:
        if not self._rarely(0.15):
            return b""
        status = self._random.choice([100, 102, 103])
        self.kinds.append(f"interim {status}")
        return b"HTTP/1.1 %d Wait\r\nX-Interim: 1\r\n\r\n" % status * self._random.choice([1, 2])

    def _framed(self, sent: bytes) -> tuple[list[bytes], bytes, bool]:
        """Header lines, the encoded body, and whether the connection must be closed after it."""
        way = self._random.random()
        if way < 0.1:
            self.kinds.append(".end")
            return [], sent, True
        if way < 0.5:
            line = self._one(LENGTHS) if self._rarely(0.4) else LENGTHS[".length"][0]
            return [line.replace(b"%d", b"%d" % len(sent))], sent, self._rarely(0.3)
        line = self._one(CODINGS) if self._rarely(0.6) else CODINGS[".chunked"][0]
        return [line], self._chunks(sent), self._rarely(0.3)

    def _chunks(self, sent: bytes) -> bytes:
        made, at = [], 0
        shape = self._random.choice([b"%x\r\n"] * 4 + [b"%X\r\n", b"00%x\r\n", b"%x;a=b\r\n", b"%x  \r\n"])
        while at < len(sent):
            size = self._random.choice([1, 7, 300, 5_000])
            part = sent[at : at + size]
            made.append(shape % len(part) + part + b"\r\n")
            at += size
        made.append(self._random.choice([b"0\r\n\r\n"] * 5 + [b"0\r\nX-Trailer: 1\r\n\r\n", b"000;x\r\n\r\n"]))
        if self._rarely(0.1):
            self.kinds.append("bad chunk")
            spoilt = self._random.choice(
                [b"zz\r\n", b"-1\r\n", b"\r\n", b"5\r\nhelloXX", b"0x5\r\nhello\r\n", b"5\nhello\n"]
            )
            made.insert(self._random.randrange(len(made)), spoilt)
        return b"".join(made)

    def _redirect(self, number: int) -> Case:
        kind = self._random.choice(list(LOCATIONS))
        self.kinds += [kind] if kind != ".location" else []
        text = self._random.choice(LOCATIONS[kind])
        host = self._origin.partition("://")[2]
        text = text.replace("N", str(number)).replace("O", self._origin)
        text = text.replace("H", host, 1) if "//H" in text else text
        location = text.encode("latin-1" if "\xe9" in text else "utf-8")
        status = self._random.choice([301, 302, 303, 307, 308])
        wire = b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 5\r\n\r\nmoved" % (status, location)
        return Case(number, wire, hangs_up=False, kinds=("redirect", *self.kinds))
