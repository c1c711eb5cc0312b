"""Takes secrets out of what is kept of an answer, in every form in which a page may say them again.

A secret becomes ``removed``. A token of ``[before]`` keeps its shape (each letter an ``a`` or ``A``, each digit a ``1``),
so that the page that gave it can be read again by the same selectors and patterns; it is worth nothing afterwards.
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
TOKEN_CHARACTERS_MIN: Final = 4  # a shorter value of [before] is no token, and stands everywhere
# Headers that hand out what lets somebody in; www-authenticate only asks for it.
_NAMES: Final = re.compile(r"cookie|token|secret|session|csrf|xsrf|api-?key|^proxy-auth|^auth", re.IGNORECASE)


class Redaction:
    """What has to go, longest first, so that no form of a secret is cut by another one inside it."""

    def __init__(self, secrets: Iterable[str], tokens: Iterable[str] = ()) -> None:
        """``secrets`` are removed whatever they are but empty, ``tokens`` from four characters on."""
        pairs: dict[bytes, bytes] = {}
        for secret in filter(None, secrets):
            pairs |= _forms(secret, shape(secret) if secret.isdigit() else REMOVED)  # JSON numbers stay numbers
        for token in tokens:
            if len(token) >= TOKEN_CHARACTERS_MIN:
                pairs = _forms(token, shape(token)) | pairs
        self._pairs = sorted(pairs.items(), key=lambda pair: len(pair[0]), reverse=True)

    def __bool__(self) -> bool:
        """Whether there is anything to take out."""
        return bool(self._pairs)

    def bytes(self, data: bytes) -> bytes:
        """The same bytes without any secret; the very same where there is none in them."""
        for form, instead in self._pairs:
            data = data.replace(form, instead)
        return data

    def text(self, text: str) -> str:
        """The same text without any secret."""
        return self.bytes(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace") if self._pairs else text

    def headers(self, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        """An answer's headers. Those that hand out cookies, tokens or sessions stay by name only."""
        return [(name, REMOVED if _NAMES.search(name) else self.text(value)) for name, value in headers.items()]


def shape(text: str) -> str:
    """A text of the same look that says nothing."""
    return "".join("1" if c.isdigit() else "A" if c.isupper() else "a" if c.isalpha() else c for c in text)


def _forms(text: str, instead: str) -> dict[bytes, bytes]:
    """Every form of a text and what stands instead of it; the plain one wins where two are the same."""
    pairs: dict[bytes, bytes] = {}
    for one, other in zip(_written(text), _written(instead), strict=True):
        for charset in ("utf-8", "latin-1"):
            try:
                pairs.setdefault(one.encode(charset), other.encode(charset))
            except UnicodeEncodeError:
                continue
    return pairs


def _written(text: str) -> Iterator[str]:
    """As it is, in one line, in an address, a form or a cookie, in HTML, in JSON, in Base64."""
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
