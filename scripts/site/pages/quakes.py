"""A day's earthquakes as GeoJSON: 146 features of about 750 bytes each, one a line. Places and numbers are made up."""

import json
import random
from functools import cache
from typing import Any, Final

from scripts.site.pages.page import FIRST, SECOND, Answer, Asked

ORIGINS: Final = ("earthquake.usgs.gov",)
FEED: Final = "/earthquakes/feed/v1.0/summary/all_day.geojson"
HOST: Final = "https://earthquake.usgs.gov"
COUNT: Final = 146
GENERATED_MS: Final = 1_795_492_800_000  # 2026-11-24 00:00 UTC
# network, region, longitude, latitude
NETWORKS: Final = (
    ("nc", "California", (-124.0, -118.0), (35.0, 41.0)),
    ("ci", "California", (-119.0, -115.0), (32.0, 36.0)),
    ("ak", "Alaska", (-165.0, -140.0), (55.0, 66.0)),
    ("hv", "Hawaii", (-156.0, -154.0), (18.8, 20.3)),
    ("nn", "Nevada", (-120.0, -115.0), (36.0, 41.0)),
    ("us", "South Pacific", (150.0, 179.0), (-35.0, -5.0)),
)


def answer(asked: Asked) -> Answer | None:
    """The day's feed; nothing else is here."""
    return Answer(_feed(), "application/json; charset=utf-8") if asked.path == FEED else None


@cache
def features() -> list[dict[str, Any]]:
    """The day's earthquakes as the feed has them, the latest first."""
    draw = random.Random(146)
    return [_feature(draw, number) for number in range(COUNT)]


@cache
def _feed() -> bytes:
    points = [feature["geometry"]["coordinates"] for feature in features()]
    low, high = ([edge(axis) for axis in zip(*points, strict=True)] for edge in (min, max))
    metadata = {
        "generated": GENERATED_MS, "url": HOST + FEED, "title": "Earthquakes of a day, a sample", "status": 200,
        "api": "1.14.1", "count": COUNT,
    }  # fmt: skip
    head = '{"type":"FeatureCollection","metadata":' + _json(metadata) + ',"features":['
    return (head + ",\n".join(map(_json, features())) + '],"bbox":' + _json(low + high) + "}").encode()


def _feature(draw: random.Random, number: int) -> dict[str, Any]:
    network, region, longitudes, latitudes = draw.choice(NETWORKS)
    code = str(75_000_000 + number * 37 + draw.randrange(37))
    event = network + code
    magnitude = round(min(max(draw.expovariate(0.8), 0.1), 7.4), 2)
    town = f"{draw.choice(FIRST)} {draw.choice(SECOND)}".title()
    place = f"{draw.randrange(1, 99)} km {draw.choice(('N', 'NNE', 'ESE', 'SW', 'WNW'))} of {town}, {region}"
    happened = GENERATED_MS - int(86_400_000 * (number + draw.random()) / COUNT)
    properties = {
        "mag": magnitude, "place": place, "time": happened, "updated": happened + draw.randrange(60_000, 9_000_000),
        "tz": None, "url": f"{HOST}/earthquakes/eventpage/{event}",
        "detail": f"{HOST}/earthquakes/feed/v1.0/detail/{event}.geojson",
        "felt": draw.choice((None, None, None, draw.randrange(1, 400))), "cdi": None, "mmi": None, "alert": None,
        "status": draw.choice(("automatic", "reviewed")), "tsunami": int(magnitude > 7), "sig": int(magnitude * 65),
        "net": network, "code": code, "ids": f",{event},", "sources": f",{network},",
        "types": draw.choice((",geoserve,nearby-cities,origin,phase-data,", ",nearby-cities,origin,phase-data,scitech-link,")),
        "nst": draw.choice((None, draw.randrange(5, 120))), "dmin": round(draw.random(), 8),
        "rms": round(draw.random(), 2), "gap": draw.randrange(20, 340),
        "magType": draw.choice(("ml", "md", "mb")), "type": "earthquake", "title": f"M {magnitude:.1f} - {place}",
    }  # fmt: skip
    point = [
        round(draw.uniform(*longitudes), 4),
        round(draw.uniform(*latitudes), 4),
        round(draw.expovariate(0.05), 2),
    ]
    return {
        "type": "Feature",
        "properties": properties,
        "geometry": {"type": "Point", "coordinates": point},
        "id": event,
    }


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
