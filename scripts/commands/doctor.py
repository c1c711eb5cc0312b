"""``nearfetch doctor``: looks at everything that a stack needs, and says what is wrong, what it costs, and what mends it."""

import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import redis
from msgspec import Struct

from jobs.contract import rfc3339
from regions import connect
from regions.settings import Region, Settings
from scripts.checks import certificates, host, rabbitmq, redis_server, servers
from scripts.checks.clocks import Clocks
from scripts.checks.finding import Check, Finding, Secrets, beside
from scripts.checks.servers import Server
from scripts.commands.source_check import faults, known
from scripts.stack.data_folder import DataFolder
from scripts.stack.gateway_client import GatewayClient, NoGateway, Refused
from scripts.stack.probes import mongo
from scripts.stack.services import RabbitMQ
from scripts.terminal import Progress, counted, say_json

MARKS: Final = {  # six characters
    "fine": ("    ok", "green"),
    "wrong": (" wrong", "red"),
    "better": ("better", "yellow"),
    "unseen": ("     ?", "white"),
}
GATEWAY_SECONDS: Final = 3.0
DENIED: Final = (401, 403)
NOT_FOUND: Final = 404
OK: Final = 200
ANY: Final = ("0.0.0.0", "::", "")  # noqa: S104 - what a setting may say; nothing is bound here


class Named(Struct, frozen=True):
    """A fault of ``GET /v1/faults``."""

    name: str
    severity: str
    message: str
    cost: str = ""
    mend: str = ""
    region: str | None = None
    source: str | None = None


class Answer(Struct, frozen=True):
    """The answer of ``GET /v1/faults``."""

    faults: list[Named]


@dataclass(frozen=True)
class Place:
    """Where the command runs. ``region``: this host is that region's, and asks the hub as its user; "" at the hub.

    ``data``: the data folder of the ``scripts/up`` beside it, if there is one. ``gateway``: the gateway to ask, None if none is known.
    """

    settings: Settings
    region: str
    data: DataFolder | None
    gateway: GatewayClient | None
    regions: list[Region] = field(default_factory=list)


def place(settings: Settings, url: str, data: Path | None, near: DataFolder | None) -> Place:
    """Finds out where the command runs. ``near``: the data folder whose settings these are."""
    region = redis_server.region_of(settings)
    address = url or os.environ.get("NEARFETCH_URL", "")
    if not address and near is None and not region:
        at = "127.0.0.1" if settings.gateway.host in ANY else settings.gateway.host
        address = f"http://{at}:{settings.gateway.port}"
    try:
        gateway = GatewayClient.found(address, data) if address or near is not None else None
    except NoGateway:  # the stack beside it does not run
        gateway = None
    regions = [one for one in settings.region.values() if region in ("", one.name)]
    return Place(settings, region, near, gateway, regions)


def _compared(clocks: Clocks) -> Iterator[tuple[None, list[Finding]]]:
    """The clocks, once all that answer have been read."""
    yield None, list(clocks.findings())


def _own(where: Place) -> Settings:
    """The settings with those regions alone that are looked at from here."""
    return msgspec.structs.replace(where.settings, region={one.name: one for one in where.regions})


def run(where: Place, *, as_json: bool, every: bool) -> int:
    """Runs all checks, and prints what they find, those that are wrong as soon as they are known. Returns the exit code."""
    clocks = Clocks()
    todo = checks(where, clocks)
    secrets = Secrets(where.settings, *([where.data.key] if where.data is not None else []))
    progress = Progress()
    found: list[Finding] = []

    def waiting(left: Sequence[Check]) -> None:
        if not as_json:
            progress.waiting(
                f"{len(todo) - len(left)} of {len(todo)} checks: {', '.join(one.what for one in left[:3])}"
            )

    for _, several in chain(beside(todo, waiting), _compared(clocks)):
        hidden = [secrets.hide(one) for one in several]
        found += hidden
        if not as_json:
            for one in hidden:
                if every or one.severity in ("wrong", "better"):
                    _show(progress, one)
    wrong, better, unseen = (sum(one.severity == kind for one in found) for kind in ("wrong", "better", "unseen"))
    if as_json:
        order = {"wrong": 0, "better": 1, "unseen": 2, "fine": 3}
        listed = sorted(found, key=lambda one: (order[one.severity], one.check, one.what))
        figures = {"wrong": wrong, "better": better, "unseen": unseen, "fine": len(found) - wrong - better - unseen}
        say_json(
            {
                "at": rfc3339(int(time.time() * 1000)),
                "host": platform.node(),
                "region": where.region or None,
                **figures,
                "findings": [_as_json(one) for one in listed],
            }
        )
    else:
        progress.line(_summary(where, found))
    return int(wrong > 0)


def checks(where: Place, clocks: Clocks) -> list[Check]:
    """All checks for this place."""
    settings, regions = where.settings, where.regions
    return [
        *_of_servers(where, clocks),
        *_of_certificates(where),
        *_of_host(where),
        *_asks_gateway(where),
        *(
            Check("definition", "sources", lambda: _definitions(settings), seconds=60.0, cost="unknown"),
            Check("setting", "standbys", lambda: _standbys(settings)),
        ),
        *(
            Check("permission", f"dashboard of {one.name}", partial(redis_server.dashboard_users, one))
            for one in regions
        ),
    ]


def _of_servers(where: Place, clocks: Clocks) -> Iterator[Check]:
    settings = _own(where)
    hub, away = settings.hub, redis_server.AWAY_COSTS
    shown = connect.without_password
    again = "start it again, with its files"
    yield Check(
        "connection",
        "hub's Redis",
        lambda: redis_server.redis_seen(
            "hub's Redis",
            hub.redis,
            hub.durability,
            clocks,
            is_hub=True,
            records_bytes_max=settings.limits.records_bytes_max,
        ),
        shown(hub.redis),
        cost=away[True],
        mend=again,
    )
    for region in where.regions:
        what, one = f"Redis of {region.name}", region.redis
        yield Check(
            "connection",
            what,
            partial(redis_server.redis_seen, what, one.url, one.durability, clocks, is_hub=False),
            shown(one.url),
            cost=away[False],
            mend=again,
        )
    count = len(connect.amqp_parameters(hub.amqp, name="check"))
    yield Check(
        "connection",
        "RabbitMQ",
        lambda: rabbitmq.seen(settings),
        shown(hub.amqp),
        seconds=6.0 + 6.0 * count,
        cost=rabbitmq.NO_REQUESTS,
        mend=again,
    )
    if where.region:
        return
    yield Check("permission", "hub's users", lambda: _users(settings))
    own = (
        RabbitMQ(where.data.path / "rabbitmq", connect.amqp_parameters(hub.amqp, name="check")[0].port)
        if where.data is not None
        else None
    )
    look = rabbitmq.inside_of(settings, own)
    yield Check(
        "policy",
        "RabbitMQ",
        lambda: rabbitmq.inside_seen(settings, look),
        shown(hub.management_url),
        seconds=rabbitmq.NODE_SECONDS,
    )
    if hub.mongo:
        yield Check(
            "connection",
            "history",
            lambda: _history(settings),
            shown(hub.mongo),
            cost="GET /v1/requests is answered 503; requests are gone when their results expire",
            mend=again,
        )


def _of_certificates(where: Place) -> Iterator[Check]:
    asked = [where.gateway.url] if where.gateway is not None else []
    for what, at, port, context in certificates.of(_own(where), *asked):
        yield Check(
            "certificate",
            what,
            partial(certificates.seen, what, at, port, context),
            f"{at}:{port}",
            cost=certificates.COST,
        )
    for what, file in certificates.own(_own(where)):
        yield Check("certificate", what, partial(certificates.shown_by_client, what, file), file)


def _of_host(where: Place) -> Iterator[Check]:
    settings, data = where.settings, where.data
    yield Check("version", "this checkout", host.versions)
    has_redis = host.has_server(settings, where.regions)
    yield Check(
        "limit",
        "this host",
        lambda: host.limits(
            settings,
            has_gateway=not where.region,
            has_redis=has_redis,
            has_workers=bool(where.region) or data is not None,
        ),
    )
    yield Check(
        "disk", "this host", lambda: host.disks(settings, where.regions, data.path if data is not None else None)
    )
    if data is None and (where.region or settings.bridges.path):
        yield Check("cron", "bridges", lambda: host.cron(settings))


def _asks_gateway(where: Place) -> Iterator[Check]:
    if where.gateway is not None:
        gateway = where.gateway
        yield Check(
            "connection",
            "gateway",
            lambda: of_gateway(gateway),
            gateway.url,
            seconds=2 * GATEWAY_SECONDS + 2,
            cost="its clients get no answer",
            mend="start nearfetch gateway again; its log says why it hangs",
        )


def _users(settings: Settings) -> Iterator[Finding]:
    """The regions' users at the hub's Redis. If it does not let us in, another check says so."""
    try:
        with connect.open_redis(settings.hub.redis, name="check", connections=1) as client:
            client.ping()
        found = list(servers.hub_users(settings))
    except (redis.exceptions.RedisError, ValueError):
        return
    for one in found:
        yield from _converted(one, "permission", "a region can't send its results, or can do what it need not")


def _history(settings: Settings) -> Iterator[Finding]:
    fault = (mongo(settings.hub.mongo)() or "").partition(" (configured")[0]
    cost = "GET /v1/requests is answered 503; requests are gone when their results expire"
    one = Server("history", connect.without_password(settings.hub.mongo), fault, note="answers")
    yield from _converted(one, "connection", cost, "start MongoDB again, with its files; or correct hub.mongo")


def _standbys(settings: Settings) -> Iterator[Finding]:
    for one in servers.standbys(settings):
        yield from _converted(
            one,
            "setting",
            "its tasks expire when its region can't answer",
            "give the standby what is missing, or take it out of the definition",
        )


def _converted(one: Server, check: str, cost: str, mend: str = "") -> Iterator[Finding]:
    """What ``config check`` shows of a server, as findings."""
    common: dict[str, Any] = {"check": check, "what": one.what, "where": one.where}
    if one.fault:
        yield Finding(severity="wrong", found=one.fault, cost=cost, mend=mend, **common)
    for fall in one.shortfalls:
        yield Finding(
            severity="wrong",
            expected=f"{fall.setting}: {fall.expected}",
            found=fall.found,
            cost=cost,
            mend=fall.mend,
            **common,
        )
    if not one.fault and not one.shortfalls:
        yield Finding(
            severity="unseen" if "can't be checked" in one.note else "fine", note=one.note or "as it must be", **common
        )


def _definitions(settings: Settings) -> Iterator[Finding]:
    entries = known(settings).entries()
    count = 0
    for entry in entries:
        for fault in faults(settings, entry):
            count += 1
            yield Finding(
                check="definition",
                what=entry.id,
                where=str(entry.path),
                severity="wrong",
                found=str(fault),
                cost="its tasks end as unknown_source, or it changes nothing",
                mend=f"correct the line; nearfetch source check {entry.id}",
            )
    if not count:
        yield Finding(
            check="definition",
            what="sources",
            severity="fine",
            note=f"{counted(len(entries), 'definition')}, nothing wrong",
        )


def of_gateway(gateway: GatewayClient) -> Iterator[Finding]:
    """Whether it answers, whether it is ready, and which faults it tells."""
    common: dict[str, Any] = {"what": "gateway", "where": gateway.url}
    try:
        status, ready = gateway.status("/readyz", GATEWAY_SECONDS)
    except NoGateway as error:
        yield Finding(
            check="connection",
            severity="wrong",
            expected="an answer",
            found=str(error).partition(". Is it")[0],
            cost="its clients' connections are refused",
            mend="start nearfetch gateway; its log says why it ended",
            **common,
        )
        return
    yield Finding(check="connection", severity="fine", note="ready" if status == OK else "answers", **common)
    try:
        told = msgspec.convert(gateway.get("/v1/faults", GATEWAY_SECONDS), Answer).faults
    except (Refused, NoGateway, msgspec.ValidationError) as error:
        if status != OK:
            yield Finding(
                check="fault",
                severity="wrong",
                expected="a gateway that is ready",
                found=str(ready.get("detail") or ready.get("reason") or ready.get("title")),
                cost="new requests are answered 503",
                mend="mend what it names",
                **common,
            )
        denied = isinstance(error, Refused) and error.status in DENIED
        why = (
            "its faults are shown with a key of the scope admin alone (NEARFETCH_KEY)"
            if denied
            else f"its faults: {error}"
        )
        yield Finding(check="fault", severity="unseen", note=why, **common)
        return
    for one in told:
        what = one.source or one.region or "hub"
        yield Finding(
            check="fault",
            what=what,
            where=one.name,
            severity="wrong" if one.severity == "page" else "better",
            found=one.message,
            cost=one.cost,
            mend=one.mend,
        )
    if not told:
        yield Finding(check="fault", severity="fine", note="tells no fault", **common)


def _show(progress: Progress, one: Finding) -> None:
    mark, colour = MARKS[one.severity]
    shown = click.style(mark.strip(), fg=colour) if sys.stdout.isatty() else mark.strip()
    head = f"{' ' * (len(mark) - len(mark.strip()))}{shown}  {one.check:<11} {one.what}"
    if one.severity in ("fine", "unseen"):
        progress.line(f"{head}   {one.note}")
        return
    said = f"expected {one.expected}, found {one.found}" if one.expected else one.found
    progress.line(f"{head}   {said}")
    for name, text in (("where", one.where), ("costs", one.cost), ("mend", one.mend)):
        if text:
            progress.line(f"          {name:<6} {text}")


def _summary(where: Place, found: Sequence[Finding]) -> str:
    wrong, better, unseen = (sum(one.severity == kind for one in found) for kind in ("wrong", "better", "unseen"))
    parts = [f"{wrong} wrong" if wrong else "nothing is wrong"]
    parts += [f"{better} could be better"] if better else []
    parts += [f"{unseen} can't be seen from here (--all says why)"] if unseen else []
    whose = (
        f"as {where.region}'s host"
        if where.region
        else f"of the scripts/up in {where.data.path}"
        if where.data is not None
        else "at the hub"
    )
    return f"{counted(len(found), 'finding')} {whose}: {', '.join(parts)}"


def _as_json(one: Finding) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(one)
    return {name: text or None for name, text in shown.items()}
