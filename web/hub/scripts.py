"""The scripts that change the ledger on the hub's Redis: each makes one change that separate commands would leave half done.

Each stands in ``web/hub/lua`` and says there what it does. They go by the hub's ``TIME``. All but ``ASK``, ``BEGIN``, ``JUDGE``
and ``KEEP_DEAD`` run where memory is short (``allow-oom``), since they free more than they take. Their keys are made by
``regions.names``.
"""

from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from regions import names
from regions.lua_files import Folder
from regions.script import Script

# The answers of SETTLE.
SETTLED, NOTHING, LATE, TOO_LARGE, LAST, NO_FRAME, NO_ROOM, OUT = 1, 0, 2, 3, 4, 5, 6, 7
ENDED: Final = (SETTLED, LAST)

# After its deadline and grace, until somebody looks whether a request with a webhook has ended.
PENDING_MS: Final = 5_000
TAKEN_BACK_MS: Final = 2_000  # within which a gateway takes back what it answered 503 to

_folder: Final = Folder(
    Path(__file__).with_name("lua"),
    {
        "SETTLED": SETTLED, "NOTHING": NOTHING, "LATE": LATE, "TOO_LARGE": TOO_LARGE, "LAST": LAST, "NO_FRAME": NO_FRAME,
        "NO_ROOM": NO_ROOM, "OUT": OUT, "WAKE": names.WAKE, "MORE": names.MORE, "HUB": names.HUB,
        "OPEN_OF": names.open_tasks(""), "RESULT_OF": names.result("%s", "%s"),
        "WEBHOOKS": names.WEBHOOKS, "WEBHOOKS_ENDED": names.WEBHOOKS_ENDED, "WEBHOOK": names.webhook(""),
        "ENDED_SUFFIX": names.webhook_ledger("").removeprefix(names.webhook("")), "TAKEN_BACK_MS": TAKEN_BACK_MS,
        "LEDGER": names.ledger(""), "PENDING_MS": PENDING_MS,
        "JOB": names.rq_job(""),
    },
)  # fmt: skip


def _load(name: str, *, flags: str = "", **rows: type[Any]) -> Script:
    return Script(_folder.read(name, flags=flags, **rows))


class Begun(Struct, frozen=True, gc=False):
    """A task of a new request. Keys: its region's ``open`` tasks, the ``latest`` success of tasks that ask the same.

    ``moved``: a web.hub.takeover.Moved, empty if its source's own region is asked. ``ask``: its message, if another region
    may be asked later.
    """

    id: str
    region: str
    open: str
    latest: str
    moved: bytes
    ask: bytes


class Elsewhere(Struct, frozen=True, gc=False):
    """A task for which another region is to be asked, as ``ask.lua`` says."""

    id: str
    request: str
    to: str
    moved: bytes
    ledger: str
    asks: str
    open: str


class Refused(Struct, frozen=True, gc=False):
    """A task of a request that is refused; ``open`` is the key of its region's open tasks."""

    id: str
    open: str


class Settled(Struct, frozen=True, gc=False):
    """A task that is to end, as ``settle.lua`` says."""

    id: str
    region: str
    status: str
    finished_ms: int
    size_bytes: int
    frame: bytes
    from_region: str
    trail: bytes
    is_latest: int
    held_max: int
    open: str
    own: str
    came: str
    kept: str
    held: str


class Running(Struct, frozen=True, gc=False):
    """A task that runs; ``ledger`` and ``trails`` are its request's keys."""

    id: str
    trail: bytes
    ledger: str
    trails: str


class Archived(Struct, frozen=True, gc=False):
    """A request that was to be archived; ``is_put``: 1 if the history has it now."""

    id: str
    is_put: int
    ledger: str


class Message(Struct, frozen=True, gc=False):
    """What a webhook is to be told, and the job that does so, as ``enqueue_webhooks.lua`` says."""

    request: str
    body: bytes
    data: bytes
    description: str


BEGIN: Final = _load("begin", task=Begun)
ACCEPT: Final = _load("accept")
REFUSE: Final = _load("refuse", task=Refused)
SETTLE: Final = _load("settle", task=Settled)
ASK: Final = _load("ask", task=Elsewhere)
RUNNING: Final = _load("running", task=Running)
OVERDUE: Final = _load("overdue")
LEASE: Final = _load("lease")
ARCHIVED: Final = _load("archived", request=Archived)
READ: Final = _load("read")
READ_ONLY: Final = _load("read", flags="no-writes")  # notes nothing: also for a Redis that takes no writes
GROUPS: Final = _load("groups")
HOLD: Final = _load("hold")
FORGET: Final = _load("forget")
SURPLUS: Final = _load("surplus")
BAR: Final = _load("bar")
JUDGE: Final = _load("judge")
KEEP_DEAD: Final = _load("keep_dead")
TAKE_WEBHOOKS: Final = _load("take_webhooks")
ENQUEUE_WEBHOOKS: Final = _load("enqueue_webhooks", message=Message)
RESEND_WEBHOOK: Final = _load("resend_webhook")
