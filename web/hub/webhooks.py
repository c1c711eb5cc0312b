"""Webhooks: where a client wants to be told that its request has ended, as the hub keeps it.

    begin ─ pending ── the request has ended ─ due ── delivered (a 2xx), or failed (no attempt is left, 410, or not permitted)

The secret signs what is sent (Standard Webhooks). It rests at the hub, as long as the webhook does, and nowhere else: views, logs and
jobs do not have it. The script that ends the request, or that accepts it if that comes last, writes that the webhook is due.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
import redis
from msgspec import Struct

from jobs.contract import rfc3339
from regions import connect, names
from regions.script import send, value
from web.hub import scripts

State = Literal["pending", "due", "delivered", "failed"]
STATES: Final[tuple[State, ...]] = ("pending", "due", "delivered", "failed")
URL_CHARACTERS_MAX: Final = 2_048
_PORT: Final = "6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}"
# RFC 3986, without a fragment.
_REST: Final = rf"(:({_PORT}))?([/?]([A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{{2}})*)?$"
_HOST: Final = r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])"
_HERE: Final = r"(localhost|127\.0\.0\.1|\[::1\])"
URL_PATTERN: Final = rf"^(https://{_HOST}|http://{_HERE}){_REST}"
PLAIN_PATTERN: Final = rf"^https?://{_HOST}{_REST}"  # where an operator permits http
_B64: Final = "[A-Za-z0-9+/]"
# 24 to 64 bytes in base64, with its padding or without (Standard Webhooks, "Signature scheme").
SECRET_PATTERN: Final = (
    rf"^whsec_(({_B64}{{4}}){{8,20}}({_B64}{{2}}(==)?|{_B64}{{3}}=?)?|({_B64}{{4}}){{21}}({_B64}{{2}}(==)?)?)$"
)
BYTES: Final = 2_500  # that one takes at the hub, with its message and its job
AT_ONCE: Final = 500  # webhooks that are read in one round trip
LOOKED_AT: Final = 2_000  # webhooks for one page
OFFSET_MAX: Final = 10**9
FIELDS: Final = ("url", "state", "attempts", "sent", "status", "error", "next")  # as read.lua tells them


class Webhook(Struct, frozen=True):
    """Where to tell that a request has ended, and what signs the message."""

    url: str
    secret: str

    def __repr__(self) -> str:
        return f"Webhook({shown(self.url)!r})"


class WebhookView(Struct, frozen=True):
    """A webhook as its request's JSON shows it. Times are RFC 3339; ``status`` and ``error`` are of the last attempt."""

    url: str
    state: str
    attempts: int = 0
    last_attempt_at: str | None = None
    status: int | None = None
    error: str | None = None
    next_attempt_at: str | None = None


class Listed(Struct, frozen=True):
    """A webhook as an operator sees it."""

    request: str
    tenant: str
    ended_at: str
    webhook: WebhookView


def wrong_url(url: str, *, plain_http: bool) -> str | None:
    """What is wrong with the address of a webhook; None if nothing is. ``plain_http``: http is permitted anywhere."""
    if len(url) > URL_CHARACTERS_MAX:
        return f"an address of {URL_CHARACTERS_MAX} characters at most, found {len(url)}"
    if re.search(PLAIN_PATTERN if plain_http else URL_PATTERN, url, re.ASCII) and "\n" not in url:
        return None
    if url.startswith("http://") and not plain_http:
        return "an https address, found http"
    return "an https address in ASCII (percent-encode the rest) without user and fragment"


def is_secret(text: str) -> bool:
    """Whether a text is a secret of Standard Webhooks: ``whsec_`` and 24 to 64 bytes in base64."""
    return re.search(SECRET_PATTERN, text, re.ASCII) is not None and "\n" not in text


def shown(url: str) -> str:
    """An address as it may be shown: a query may hold a token."""
    before, query, _ = url.partition("?")
    return before + "?…" if query else before


def view_of(fields: Mapping[bytes, bytes], prefix: str = "") -> WebhookView | None:
    """The webhook in fields of a hash whose names begin with ``prefix``; None if there is none."""
    told = {name: fields.get(f"{prefix}{name}".encode()) or b"" for name in FIELDS}
    if not told["url"]:
        return None
    return WebhookView(
        shown(told["url"].decode()),
        told["state"].decode(),
        int(told["attempts"] or 0),
        _time(told["sent"]),
        int(told["status"]) if told["status"] else None,
        told["error"].decode() or None,
        _time(told["next"]) if told["state"] == b"due" else None,
    )


def read(client: redis.Redis, request: str) -> WebhookView | None:
    """The webhook of a request; None if the hub has none, or none any more."""
    found: Any = client.hmget(names.webhook(request), FIELDS)
    return view_of({name.encode(): one for name, one in zip(FIELDS, found, strict=True) if one is not None})


def page(
    client: redis.Redis, most: int, *, tenant: str | None = None, state: str | None = None, after: str | None = None
) -> tuple[list[Listed], str | None]:
    """Returns (webhooks of requests that have ended, the latest end first, without secrets; the next page's ``after``, None at the end).

    Of one tenant and state, or of all. A page looks at ``LOOKED_AT`` webhooks, of all tenants: so it may have fewer than ``most``, or
    none, though others follow. A cursor says when the last one ended that was looked at, and how many that ended then.
    """
    ended, count = (int(part) for part in (after or "0-0").split("-"))
    rows: Any = client.zrevrangebyscore(
        names.WEBHOOKS_ENDED,
        ended if after else "+inf",
        "-inf",
        start=min(count, OFFSET_MAX),
        num=LOOKED_AT,
        withscores=True,
    )
    found: list[Listed] = []
    fields = (*FIELDS, "tenant", "ended")
    for part in (rows[at : at + AT_ONCE] for at in range(0, len(rows), AT_ONCE)):
        commands = [("HMGET", names.webhook(request.decode()), *fields) for request, _ in part]
        for (request, score), reply in zip(part, send(client, commands, []), strict=True):
            if len(found) == most:
                return found, f"{ended}-{count}"
            ended, count = int(score), count + 1 if int(score) == ended else 1
            told = {name.encode(): one for name, one in zip(fields, value(reply), strict=True) if one is not None}
            view, of = view_of(told), told.get(b"tenant", b"").decode()
            if view is not None and tenant in (None, of) and state in (None, view.state):
                found.append(Listed(request.decode(), of, rfc3339(int(told[b"ended"])), view))
    return found, f"{ended}-{count}" if len(rows) == LOOKED_AT else None


def listed(
    client: redis.Redis, tenant: str | None = None, state: str | None = None, most: int | None = None
) -> list[Listed]:
    """The same without pages: all, or the first ``most``."""
    found: list[Listed] = []
    cursor: str | None = ""
    while cursor is not None and (most is None or len(found) < most):
        more, cursor = page(client, most or LOOKED_AT, tenant=tenant, state=state, after=cursor or None)
        found += more
    return found[:most]


def tenant_of(client: redis.Redis, request: str) -> str | None:
    """Whose a request's webhook is; None if the hub has none, or none any more."""
    tenant: Any = client.hget(names.webhook(request), "tenant")
    return None if tenant is None else tenant.decode()


def resend(client: redis.Redis, request: str, retry_seconds: float) -> bool:
    """Has a webhook called again, from its first attempt on, under the same ``webhook-id``. False if it is unknown, or its request has not ended."""
    sent = scripts.RESEND_WEBHOOK.call(
        client,
        webhook=names.webhook(request),
        request=request,
        retry_ms=int(retry_seconds * 1000),
        kept_ms=names.WEBHOOK_KEPT_MS,
    )
    return bool(sent)


def senders(client: redis.Redis) -> list[str]:
    """The processes that call webhooks now."""
    since = connect.redis_now_ms(client) - names.WEBHOOK_SENDER_MS
    found: Any = client.zrangebyscore(names.WEBHOOK_SENDERS, since, "+inf")
    return [one.decode() for one in found]


def message(ended_ms: int, request: bytes) -> bytes:
    """What a receiver is told, in the form of Standard Webhooks. ``request``: the JSON of the request, without results."""
    kind = {"type": "request.done", "timestamp": rfc3339(ended_ms), "data": msgspec.Raw(request)}
    return msgspec.json.encode(kind)


def _time(ms: bytes) -> str | None:
    return rfc3339(int(ms)) if ms else None
