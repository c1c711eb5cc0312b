"""A region's secrets: which sources may use them, and what they stand for.

``[secrets.NAME] sources = ["line.*"]`` binds one; its value stands in ``NEARFETCH__SECRET__NAME``, or in the file that
``NEARFETCH__SECRET__NAME_FILE`` names, of whatever reads the region's settings. Only its workers need it there.
"""

import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Final

from msgspec import Struct

VARIABLE: Final = "NEARFETCH__SECRET__"


class Secret(Struct, frozen=True, forbid_unknown_fields=True):
    """``sources``: ids and patterns like ``line.*``; ``value``: "" where this process does not have it."""

    sources: tuple[str, ...] = ()
    value: str = ""

    def serves(self, source: str) -> bool:
        """Whether a source may use it."""
        return any(fnmatchcase(source, one) for one in self.sources)


def line_for(name: str, secret: Secret | None, source: str) -> str:
    """The line of a region's file that lets a source use a secret."""
    sources = ", ".join(f'"{one}"' for one in (*(secret.sources if secret is not None else ()), source))
    return f"[secrets.{name}] sources = [{sources}]"


def is_secret(name: str) -> bool:
    """Whether a setting of this name may be one that no message shows."""
    lowered = name.lower()
    words = ("password", "redis", "amqp", "mongo", "url", "proxy", "token", "secret", "value")
    return any(word in lowered for word in words)


def variable_of(environ: Mapping[str, str], name: str) -> str:
    """The variable that gives a secret's value, or names the file that holds it; "" for none."""
    return next((one for one in (f"{VARIABLE}{name}", f"{VARIABLE}{name}_FILE") if one in environ), "")


def bound_by(environ: Mapping[str, str], prefix: str, known: Collection[str]) -> list[str]:
    """The secrets that variables (``PREFIX__NAME__SOURCES``) bind, besides the known ones, in whose letter case they are."""
    bound = (found[1] for found in map(re.compile(f"{re.escape(prefix)}__(.+)__SOURCES").fullmatch, environ) if found)
    same = {one.upper().replace("-", "_") for one in known}
    return [name for name in bound if name not in same]
