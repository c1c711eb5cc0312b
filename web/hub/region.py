"""The hub's data about a region: the last status of its bridges and pools, its tasks, its bytes here, its refused entries."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import redis
from msgspec import Struct

from regions import names
from regions.script import send, value
from web.hub.traffic import Sums, sums_of

PARTS: Final = ("bridge:", "workers:")  # what the names of bridges and pools begin with
REFUSED: Final = "the hub refused some of its entries"  # the beginning of that reason

_status: Final = msgspec.json.Decoder(dict[str, Any])
_sources: Final = msgspec.json.Decoder(dict[str, dict[str, str | None]])


class RegionState(Struct, frozen=True, kw_only=True):
    """What the hub knows about a region at ``now_ms`` (hub ms)."""

    name: str
    now_ms: int
    reported: dict[str, Any]  # the last status of each "bridge:NAME" and "workers:NAME", and the list of "sources"
    open_tasks: int
    oldest_ms: int | None  # when the oldest open task was accepted
    unread: int  # entries of the out stream that no gateway has read
    traffic: dict[str, Sums] = {}  # by source, since ever (web.hub.traffic)
    refused: dict[str, int] = {}  # number of entries, by their fault (web.flow.refusals)
    refused_ms: int = 0  # when the last one was
    held_bytes: int = 0  # of its settled results
    barred: str = ""  # why it may not write here for a while (web.flow.holdings)


def parts_of(reported: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The bridges and pools that have reported, each with its last status; without the list of sources, whose names may be anything."""
    return ((part, status) for part, status in reported.items() if part.startswith(PARTS))


def read_regions(client: redis.Redis, regions: Sequence[str], *, has_traffic: bool = True) -> list[RegionState]:
    """The state of each of these regions, in one round trip; without ``has_traffic``, its traffic is empty. Raises what redis-py raises."""
    pipeline = client.pipeline(transaction=False)
    for region in regions:
        pipeline.hgetall(names.region_status(region))
        pipeline.zcard(names.open_tasks(region))
        pipeline.zrange(names.open_tasks(region), 0, 0, withscores=True)
        pipeline.xlen(names.out_stream(region))
        if has_traffic:
            pipeline.hgetall(names.traffic(region))
        pipeline.hgetall(names.refused(region))
        pipeline.hget(names.held(region), "all")
        pipeline.hget(names.BARRED, region)
    pipeline.time()
    *answers, now = pipeline.execute(raise_on_error=False)
    seconds, micros = value(now)
    states = []
    for index, region in enumerate(regions):
        asked = 8 if has_traffic else 7
        of_region = answers[asked * index : asked * index + asked]
        if not has_traffic:
            of_region.insert(4, {})
        unread = of_region[3]
        if isinstance(unread, Exception):  # the key is not a stream
            of_region[3] = unread = 0
        reported, count, oldest, _, sums, refused, held, barred = map(value, of_region)
        counts = {key.decode(): int(number) for key, number in refused.items()}
        states.append(
            RegionState(
                name=region,
                now_ms=int(seconds) * 1000 + int(micros) // 1000,
                reported=_reported(reported),
                open_tasks=count,
                oldest_ms=int(oldest[0][1]) if oldest else None,
                unread=unread,
                traffic=sums_of(sums),
                refused_ms=counts.pop("at", 0),
                refused=counts,
                held_bytes=int(held or 0),
                barred=(barred or b"").decode().partition(" ")[2],
            )
        )
    return states


def read_reports(
    client: redis.Redis, regions: Sequence[str]
) -> tuple[int, dict[bytes, bytes], dict[str, dict[str, Any]]]:
    """Returns (the hub's time in ms, the hash of takeovers, what each region reported last), in one round trip."""
    return reports_of(regions, send(client, report_commands(regions), []))


def report_commands(regions: Sequence[str]) -> list[tuple[Any, ...]]:
    """What ``read_reports`` sends."""
    return [("TIME",), ("HGETALL", names.TAKEOVER), *(("HGETALL", names.region_status(one)) for one in regions)]


def reports_of(
    regions: Sequence[str], replies: Sequence[Any]
) -> tuple[int, dict[bytes, bytes], dict[str, dict[str, Any]]]:
    """What ``read_reports`` returns, from the replies. Raises refusals."""
    (seconds, micros), takeovers, *reported = map(value, replies)
    reports = [_reported(_mapping(fields)) for fields in reported]
    return int(seconds) * 1000 + int(micros) // 1000, _mapping(takeovers), dict(zip(regions, reports, strict=True))


def _mapping(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _reported(fields: dict[bytes, bytes]) -> dict[str, Any]:
    """The fields that ``web.hub.entry`` let in, decoded. Fields that can't be decoded are left out."""
    found = {}
    for key, text in fields.items():
        try:
            found[key.decode()] = (_sources if key == b"sources" else _status).decode(text)
        except (ValueError, RecursionError):
            continue
    return found
