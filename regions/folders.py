"""Folders that settings name: of the user's own definitions and regions, and of this host's bridges."""

from pathlib import Path

from msgspec import Struct


class Folders(Struct, frozen=True, forbid_unknown_fields=True):
    """Folders of the user's own, several with ``:``."""

    path: str = ""

    @property
    def folders(self) -> list[Path]:
        """The folders that it names."""
        return [Path(part).expanduser() for part in self.path.split(":") if part]


class Bridges(Struct, frozen=True, forbid_unknown_fields=True):
    """``path``: this host's folder for its bridges' heartbeats and logs (bridge.keeper)."""

    path: str = ""

    @property
    def folder(self) -> Path | None:
        """The folder that it names."""
        return Path(self.path).expanduser().absolute() if self.path else None
