"""Removes secrets from kept answers, in every form in which a page may repeat them.

A secret becomes ``removed``. A token of ``[before]`` keeps its shape (each letter becomes ``a`` or ``A``, each digit ``1``),
so that the same selectors and patterns can read the page again; as a token it is worthless.
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import quote, quote_plus

from jobs.definition.ask import COOKIE_SAFE

REMOVED: Final = "removed"
TOKEN_CHARACTERS_MIN: Final = 4  # a shorter value of [before] is no token, and occurs everywhere
# Headers that carry credentials; www-authenticate only asks for them.
_NAMES: Final = re.compile(r"cookie|token|secret|session|csrf|xsrf|api-?key|^proxy-auth|^auth", re.IGNORECASE)


class Redaction:
    """Replaces secrets, the longest form first: a shorter one may be contained in it."""

    def __init__(self, secrets: Iterable[str], tokens: Iterable[str] = ()) -> None:
        """All ``secrets`` that are not empty are removed, and ``tokens`` of at least four characters."""
        pairs: dict[bytes, bytes] = {}
        for secret in filter(None, secrets):
            pairs |= _forms(secret, shape(secret) if secret.isdigit() else REMOVED)  # JSON numbers stay numbers
        for token in tokens:
            if len(token) >= TOKEN_CHARACTERS_MIN:
                pairs = _forms(token, shape(token)) | pairs
        self._pairs = sorted(pairs.items(), key=lambda pair: len(pair[0]), reverse=True)

    def __bool__(self) -> bool:
        """Whether there is anything to remove."""
        return bool(self._pairs)

    def bytes(self, data: bytes) -> bytes:
        """The bytes without secrets; the same object if there are none in them."""
        for form, instead in self._pairs:
            data = data.replace(form, instead)
        return data

    def text(self, text: str) -> str:
        """The text without secrets."""
        return self.bytes(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace") if self._pairs else text

    def headers(self, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        """An answer's headers. Those with cookies, tokens or sessions keep their names only."""
        return [(name, REMOVED if _NAMES.search(name) else self.text(value)) for name, value in headers.items()]


def shape(text: str) -> str:
    """A text of the same shape without its content."""
    return "".join("1" if c.isdigit() else "A" if c.isupper() else "a" if c.isalpha() else c for c in text)


def _forms(text: str, instead: str) -> dict[bytes, bytes]:
    """Each form of a text with its replacement. Of equal forms the plain one wins."""
    pairs: dict[bytes, bytes] = {}
    for one, other in zip(_written(text), _written(instead), strict=True):
        for charset in ("utf-8", "latin-1"):
            try:
                pairs.setdefault(one.encode(charset), other.encode(charset))
            except UnicodeEncodeError:
                continue
    return pairs


def _written(text: str) -> Iterator[str]:
    """A text as it is, in one line, in an address, a form or a cookie, in HTML, in JSON, in Base64."""
    yield text
    yield " ".join(text.split()) or text
    for quoted in (quote(text, safe=""), quote(text), quote(text, safe=COOKIE_SAFE), quote_plus(text)):
        yield quoted
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quoted)
    yield html.escape(text)
    yield html.escape(text, quote=False)
    for ascii_only in (True, False):
        written = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield written
        yield written.replace("/", "\\/")
    yield base64.b64encode(text.encode()).decode()
