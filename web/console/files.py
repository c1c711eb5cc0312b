"""The console's own files: style sheets, scripts (ES modules), pictures. Nothing comes from elsewhere.

Their address has a hash of all of them, ``/console/HASH/NAME``, so that a browser may keep a file for good. A page of another
version of the gateway gets the file that is here, and keeps it no longer than it must.
"""

import hashlib
from pathlib import Path
from typing import Final

from web.http.answer import Answer
from web.http.exchange import Exchange
from web.http.problems import Problem

FOLDER: Final = Path(__file__).parent / "static"
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FOR_GOOD: Final = "public, max-age=31536000, immutable"


class Files:
    """All files, read once."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._bodies = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in TYPES}
        whole = hashlib.sha256(b"".join(name.encode() + body for name, body in self._bodies.items()))
        self.version = whole.hexdigest()[:12]
        self._etags = {name: f'"{hashlib.sha256(body).hexdigest()[:24]}"' for name, body in self._bodies.items()}

    def address(self, name: str) -> str:
        """Where a page finds a file."""
        assert name in self._bodies, name
        return f"/console/{self.version}/{name}"

    def answer(self, exchange: Exchange, version: str, name: str) -> Answer:
        """A file, or 304 for a browser that has it. Raises ``Problem`` (404)."""
        body = self._bodies.get(name)
        if body is None:
            raise Problem("not-found", f"there is no file {name[:60]} of the console")
        etag = self._etags[name]
        headers = [
            ("ETag", etag),
            ("Cache-Control", FOR_GOOD if version == self.version else "no-cache"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if etag in (one.strip().removeprefix("W/") for one in exchange.header("If-None-Match").split(",")):
            return Answer(304, b"", headers)
        return Answer(200, body, [("Content-Type", TYPES[Path(name).suffix]), *headers])
