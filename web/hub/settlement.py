"""The end of a task, as the hub writes it."""

from msgspec import Struct

from jobs import contract


class Settlement(Struct, frozen=True, kw_only=True):
    """The end of a task. ``frame``: the result, if the hub itself made it."""

    request: str
    task: str
    region: str  # the one that was asked
    status: str
    finished_ms: int
    size_bytes: int  # of the result's JSON
    frame: bytes = b""
    trail: bytes = b""  # JSON: a contract.Trail, or the id of the task whose result is used again
    run: contract.Run | None = None  # the run in that trail
    # Without a run: whose task it is, as far as the hub knows, and whose fault its end (contract.Error).
    source: str = ""
    origin: str = ""
    held_max: int = 0  # bytes that the region may hold here; 0 means no limit, and that a frame is not counted

    @property
    def is_latest(self) -> bool:
        """Whether a success may be used again for other tasks."""
        return self.run is None or (self.run.own and not self.run.partial and not self.run.error)
