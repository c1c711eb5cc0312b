"""``nearfetch region drain`` and ``resume``: an operator's record at the hub, by which gateways move a region's tasks.

The gateways do the work (web.flow.takeover); the command writes the record and shows what is left.
"""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import redis
from msgspec import Struct, field

from jobs.definition.catalog import Catalog
from regions import connect, names
from regions.script import send, value
from regions.settings import Settings
from scripts.commands.options import NO_SERVER, with_hub
from scripts.terminal import counted, say, say_json
from web.flow.takeover import why_it_stays
from web.hub import takeover
from web.hub.region import read_reports
from web.hub.takeover import DRAINED, Record

SOME_LEFT: Final = 1
LOOK_SECONDS: Final = 0.5
KNOWN_SECONDS: Final = 1.5  # until every gateway has read the record
SAY_SECONDS: Final = 5.0
AT_ONCE: Final = 500  # requests that are read in one write
NO_GATEWAY_SECONDS: Final = 5.0

_tasks: Final = msgspec.json.Decoder(list[tuple[str, str, str]])


class Left(Struct):
    """The open tasks of a region.

    Tasks of sources that can move: those that are ``waiting`` or ``running`` in this region alone, and those ``moved``, for which
    another region was asked, too. Tasks that stay, by source.
    """

    waiting: int = 0
    running: int = 0
    moved: int = 0
    staying: dict[str, int] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether nothing that can move is left."""
        return not self.waiting and not self.running

    def __str__(self) -> str:
        staying = sum(self.staying.values())
        return f"{self.waiting} wait, {self.running} run, {self.moved} asked of standbys, {staying} stay"


def drain(settings: Settings, region: str, wait_seconds: float, *, as_json: bool) -> int:
    """Drains a region; returns the exit code."""
    return with_hub(settings, "drain", lambda client: _drain(client, settings, region, wait_seconds, as_json=as_json))


def resume(settings: Settings, region: str) -> int:
    """Takes the record back; returns the exit code."""

    def run(client: redis.Redis) -> int:
        was = client.hdel(names.TAKEOVER, takeover.drained_field(region))
        decided, _ = takeover.records(client.hgetall(names.TAKEOVER))  # type: ignore[arg-type]
        if region in decided:
            say(f"{region} is drained no more; it gets its tasks when it is well: {decided[region].reason}")
        else:
            say(f"{region} gets its new tasks again" if was else f"{region} was not drained")
        return 0

    return with_hub(settings, "drain", run)


def _drain(client: redis.Redis, settings: Settings, region: str, wait_seconds: float, *, as_json: bool) -> int:
    record = Record(why=DRAINED, since_ms=connect.redis_now_ms(client))
    client.hsetnx(names.TAKEOVER, takeover.drained_field(region), takeover.encode(record).decode())
    stays = _staying(client, settings, region)
    if not as_json:
        say(f"{region} is drained: standbys get its new tasks, and those that wait")
        for source, why in stays.items():
            say(f"  {source} stays in {region}, which answers it as long as it lives: {why}")
    began, said_at = time.monotonic(), float("-inf")
    while True:
        left = _left(client, region, stays)
        now = time.monotonic()
        has_gateway = bool(client.exists(names.TAKEOVER_TURN))
        is_lost = not has_gateway and now - began >= NO_GATEWAY_SECONDS
        is_over = left.is_over and has_gateway and now - began >= KNOWN_SECONDS
        if not as_json and (now - said_at >= SAY_SECONDS or is_over):
            said_at = now
            say(f"  {now - began:5.1f} s   {left}")
        if is_over or is_lost or now - began >= wait_seconds:
            break
        time.sleep(LOOK_SECONDS)
    if as_json:
        say_json({"region": region, "drained": left.is_over, "left": msgspec.to_builtins(left), "stays": stays})
    elif is_lost:
        say("no gateway moves tasks: start one; the region stays drained", err=True)
    elif left.is_over:
        say(f"nothing that can move is left in {region}; nearfetch region resume {region} brings it back")
    else:
        say(f"after {wait_seconds:g} s {counted(left.waiting + left.running, 'task')} left; it stays drained", err=True)
    return NO_SERVER if is_lost else 0 if left.is_over else SOME_LEFT


def _staying(client: redis.Redis, settings: Settings, region: str) -> dict[str, str]:
    """The sources of a region that stay there, each with the reason."""
    _, fields, reports = read_reports(client, list(settings.region))
    decided, drained = takeover.records(fields)
    away = {**drained, **decided}
    catalog = Catalog(settings.source_folders, settings.first_region)
    catalog.refresh()
    stays = {}
    for entry in catalog.entries():
        if entry.region == region:
            why = why_it_stays(entry, reports)
            standbys = entry.definition.regions(region)[1:] if entry.definition is not None else ()
            if not why and all(one in away for one in standbys):
                why = "; ".join(f"{one} is {away[one].reason}" for one in standbys)
            if why:
                stays[entry.id] = why
    return stays


def _left(client: redis.Redis, region: str, stays: Mapping[str, str]) -> Left:
    """What is open in a region now."""
    found: Any = client.zrange(names.open_tasks(region), 0, -1)
    by_request: dict[str, list[str]] = {}
    for member in found:
        request, _, task = member.decode().partition("/")
        by_request.setdefault(request, []).append(task)
    left, staying, requests = Left(), Counter[str](), list(by_request)
    for at in range(0, len(requests), AT_ONCE):
        some = requests[at : at + AT_ONCE]
        commands = [("HMGET", names.ledger(one), "tasks", *(f"t:{task}" for task in by_request[one])) for one in some]
        for request, reply in zip(some, map(value, send(client, commands, [])), strict=True):
            asked, *states = reply
            sources = {task: source for task, source, _ in _tasks.decode(asked)} if asked else {}
            for task, state in zip(by_request[request], states, strict=True):
                how, _, out = (state or b"").decode().partition("|")
                if how not in ("queued", "running"):
                    continue
                if out != region:
                    left.moved += 1
                elif sources.get(task, "") in stays:
                    staying[sources[task]] += 1
                elif how == "queued":
                    left.waiting += 1
                else:
                    left.running += 1
    left.staying = dict(staying)
    return left
