"""Folders that the settings name: the user's own definitions and regions, and the state of this host's bridges."""

from pathlib import Path

from msgspec import Struct


class Folders(Struct, frozen=True, forbid_unknown_fields=True):
    """The user's own folders; several are separated by ``:``."""

    path: str = ""

    @property
    def folders(self) -> list[Path]:
        """The folders as paths."""
        return [Path(part).expanduser() for part in self.path.split(":") if part]


class Bridges(Struct, frozen=True, forbid_unknown_fields=True):
    """``path``: the folder in which this host's bridges keep their heartbeats and logs (bridge.ensure)."""

    path: str = ""

    @property
    def folder(self) -> Path | None:
        """The folder as a path."""
        return Path(self.path).expanduser().absolute() if self.path else None
