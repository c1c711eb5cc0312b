"""A region's secrets: their values, and the sources that may use them.

``[secrets.NAME] sources = ["line.*"]`` gives a secret to sources. Its value stands in the environment variable
``NEARFETCH__SECRET__NAME``, or in the file that ``NEARFETCH__SECRET__NAME_FILE`` names. Of the processes that read a
region's settings, only its workers need the value.
"""

import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Final

from msgspec import Struct

VARIABLE: Final = "NEARFETCH__SECRET__"


class Secret(Struct, frozen=True, forbid_unknown_fields=True):
    """``sources``: source ids, and patterns like ``line.*``; ``value``: "" when this process does not have it."""

    sources: tuple[str, ...] = ()
    value: str = ""

    def serves(self, source: str) -> bool:
        """Whether the source may use this secret."""
        return any(fnmatchcase(source, one) for one in self.sources)


def line_for(name: str, secret: Secret | None, source: str) -> str:
    """The line in a region's file that lets a source use a secret."""
    sources = ", ".join(f'"{one}"' for one in (*(secret.sources if secret is not None else ()), source))
    return f"[secrets.{name}] sources = [{sources}]"


def is_password(name: str) -> bool:
    """Whether nothing may show the value of a setting with this name."""
    return any(word in name.lower() for word in ("password", "token", "secret", "value"))


def is_secret(name: str) -> bool:
    """The same for messages, which do not show addresses either: a password may be in them."""
    return is_password(name) or any(word in name.lower() for word in ("redis", "amqp", "mongo", "url", "proxy"))


def variable_of(environ: Mapping[str, str], name: str) -> str:
    """The environment variable that holds a secret's value or names its file; "" when neither is set."""
    return next((one for one in (f"{VARIABLE}{name}", f"{VARIABLE}{name}_FILE") if one in environ), "")


def bound_by(environ: Mapping[str, str], prefix: str, known: Collection[str]) -> list[str]:
    """The secrets that only environment variables (``PREFIX__NAME__SOURCES``) bind. ``known`` are those that the file binds.

    A variable for a known secret, whatever its letter case, is left out.
    """
    bound = (found[1] for found in map(re.compile(f"{re.escape(prefix)}__(.+)__SOURCES").fullmatch, environ) if found)
    same = {one.upper().replace("-", "_") for one in known}
    return [name for name in bound if name not in same]
