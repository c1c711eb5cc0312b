"""Regions as the hub knows them, for tests of what is shown of them."""

from web.hub.region import RegionState

NOW = 1_000_000


BRIDGE = {"at_ms": NOW - 1_000, "state": "consuming", "reason": "", "ready": 7}


POOL = {
    "at_ms": NOW - 1_000,
    "processes": 2,
    "busy": 3,
    "succeeded": 10,
    "failed": 2,
}


SUMS = {"runs": 3, "failed": 1, "raw": 900, "received": 300, "spared": 200, "records": 200, "wire": 100}


def state(**said) -> RegionState:
    parts = {key.replace("_", ":", 1): value for key, value in said.items()}
    return RegionState(name="fra", now_ms=NOW, reported=parts, open_tasks=4, oldest_ms=NOW - 2_500, unread=0)


def told(region="fra", **sources) -> RegionState:
    """A region that said which sources it has: their definition's hash, or a fault."""
    said = {
        source.replace("_", "."): {"definition": "", "fault": one} if " " in one else {"definition": one, "fault": None}
        for source, one in sources.items()
    }
    return RegionState(name=region, now_ms=NOW, reported={"sources": said}, open_tasks=0, oldest_ms=None, unread=0)
