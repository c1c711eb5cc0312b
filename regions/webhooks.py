"""The settings of the webhooks that tell clients of ended requests (``[webhooks]``)."""

from typing import Annotated

from msgspec import Meta, Struct

from regions.schedule import Seconds


class Webhooks(Struct, frozen=True, forbid_unknown_fields=True):
    """How webhooks are called (jobs.webhook).

    ``allow``: permitted addresses besides public ones, as in ``[fetch]``; those of ``[fetch]`` do not count, since clients choose
    these. ``plain_http``: also http, not only https. ``proxy``: as that of an egress. ``threads``: calls at once in a process.
    ``timeout_seconds``: of one call, from the look-up to the answer. A call that fails is tried again for ``retry_seconds``: first
    after ``first_wait_seconds``, then after four times as long each time, up to ``wait_max_seconds``.
    """

    allow: str = ""
    plain_http: bool = False
    proxy: str = ""
    threads: Annotated[int, Meta(ge=1, le=1024)] = 32
    timeout_seconds: Seconds = 15.0
    retry_seconds: Seconds = 86_400.0
    first_wait_seconds: Seconds = 5.0
    wait_max_seconds: Seconds = 14_400.0
