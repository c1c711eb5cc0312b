"""``nearfetch scale REGION`` and ``nearfetch workers REGION --dry-run``: the number of worker processes, and its reason."""

import time
from typing import Any, Final

import redis

from jobs.pool import scaler
from jobs.pool.scale import SETTLE_SECONDS, State, decide, describe, share
from jobs.pool.scaler import Look
from regions import connect, names
from regions.schedule import Bounds, bounds_at
from regions.settings import Region
from scripts.commands.options import WRONG_USAGE
from scripts.terminal import counted, say, say_json

AUTO: Final = "auto"
FOLLOWED_SECONDS: Final = 3.0  # the pools decide every second
LEARN_SECONDS: Final = 1.0  # between two looks, when nothing is recorded yet


def show(region: Region, *, as_json: bool) -> int:
    """Shows the current number and the last decisions. Returns 1 when no pool runs."""
    found = _look(open_region(region), region)
    if found.decided is None or not found.pools:
        say("{}" if as_json else f"{region.name}: no pool of workers is running")
        return 1
    view = scaler.view(found, found.decided)
    if as_json:
        say_json(view)
        return 0
    asked = f"; {view['asked']['number']} asked for, until {view['asked']['until']}" if view["asked"] else ""
    say(f"{region.name}: {state_line(view)}{asked}")
    say(f"  {view['load']}")
    for name, pool in sorted(found.pools.items()):
        leads = "   decides" if name == found.leader else ""
        say(f"  {name}: {counted(pool.processes, 'process', 'es')} of {found.decided.shares.get(name, 0)}{leads}")
    for one in view["decisions"]:
        say(f"  {one['at']}  {one['was']} → {one['number']}: {one['reason']}")
    return 0


def ask(region: Region, number: str) -> int:
    """Asks for a number of processes, or with ``auto`` withdraws the wish. Reports what the pools did."""
    client = open_region(region)
    bounds = bounds_at(region.scale, time.time())
    if number == AUTO:
        client.delete(names.SCALE_WISH)
        say(f"{region.name}: between {bounds.min} and {bounds.max} processes, by load and clock")
        return 0
    if not (number.isascii() and number.isdigit()) or not bounds.min <= int(number) <= bounds.max:
        expected = f'expected "{AUTO}" or {bounds.min} to {bounds.max}, as {bounds.source} allows now'
        say(f'{expected}, found "{number}"', err=True)
        return WRONG_USAGE
    wish = scaler.ask(client, region.scale, int(number), time.time())
    say(f"{region.name}: {counted(wish.number, 'process', 'es')} until {wish.shown_until}")
    end = time.monotonic() + FOLLOWED_SECONDS
    while (found := _look(client, region)).decided is None or found.decided.state.number != wish.number:
        if time.monotonic() > end:
            say("  no pool of workers has acted on it yet; pools that start will")
            return 0
        time.sleep(0.1)
    for name, part in sorted(found.decided.shares.items()):
        say(f"  {name}: {part}")
    return 0


def dry_run(region: Region) -> int:
    """Reports what the pools would decide now, and the share of one more pool. Writes nothing."""
    client = open_region(region)
    found = _look(client, region)
    state = found.decided.state if found.decided else None
    if state is None or found.seen.at - state.load.at > SETTLE_SECONDS:
        time.sleep(LEARN_SECONDS)  # a rate needs two looks
        bounds = bounds_at(region.scale, time.time())
        state = decide(None, found.seen, bounds, region.scale)
        found = _look(client, region)
    bounds = bounds_at(region.scale, time.time())
    later = decide(state, found.seen, bounds, region.scale, found.wish)
    say("\n".join(_told(region, found, state, later, bounds)))
    return 0


def state_line(view: dict[str, Any]) -> str:
    """The line with the number and its bounds."""
    return f"{view['ready']} of {counted(view['number'], 'process', 'es')}, {view['min']} to {view['max']} allowed"


def _told(region: Region, found: Look, before: State, after: State, bounds: Bounds) -> list[str]:
    pools = {name: pool.processes for name, pool in found.pools.items()}
    allowed = f"{bounds.source} allows {bounds.min} to {bounds.max}"
    lines = [
        f"{region.name}: {counted(found.seen.ready, 'process', 'es')} in {counted(len(pools), 'pool')}; {allowed}",
        f"  {describe(found.seen, after.load)}",
    ]
    if after.number == before.number:
        lines.append(f"  would stay at {after.number}; {after.needed} needed")
    else:
        lines.append(f"  would go from {before.number} to {after.number}: {after.recent[-1].reason}")
    part = share(after.number, {**pools, "": 0})[""]
    lines.append(f"  a pool started here would have {part} of them; nothing was started")
    return lines


def open_region(region: Region) -> redis.Redis:
    """A client of the region's Redis."""
    return connect.open_redis(region.redis.url, name=f"{region.name}.scale", connections=1)


def _look(client: redis.Redis, region: Region) -> Look:
    return scaler.look(client, region.name, region.workers.threads)
