"""A shipping line's tracking as nested JSON, in two pages: boxes, their places, what happened there. All made up.

A number that ends in seven zeros is a box that nothing has happened to yet; one that begins with X is unknown.
"""

import json
import random
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from scripts.site.pages.page import Answer, Asked

ORIGINS: Final = ("api.line.example",)
START: Final = "/track/MSKU6874333"
SECOND_PAGE: Final = "p/2=="
PLACES: Final = (
    ("Amber Depot", "Laem Chabang", "TH"), ("Terminal D1", "Laem Chabang", "TH"), ("Iron Quay", "Shanghai", "CN"),
    ("Wando Meadow N59", "Charleston", "US"),
)  # fmt: skip
_PATH: Final = re.compile(r"/track/([A-Z]{4}\d{7})")


@dataclass(frozen=True)
class Event:
    """A local time is "" where there is none: what is expected has not happened; ``vessel`` is "" on land."""

    place: int
    activity: str
    is_empty: bool
    actual_time: str
    expected_time: str
    vessel: str


def answer(asked: Asked) -> Answer | None:
    """A page of a box's events."""
    found = _PATH.fullmatch(asked.path)
    if found is None:
        return None
    if found[1].startswith("X"):
        return Answer(b'{"error":"no such container"}', "application/json", 404)
    cursor = asked.query.get("cursor", "")
    if cursor not in ("", SECOND_PAGE):
        return Answer(b'{"error":"no such cursor"}', "application/json", 400)
    body = _page(found[1], second=cursor == SECOND_PAGE)
    return Answer(json.dumps(body, indent=2).encode(), "application/json")


@cache
def events(number: str) -> list[Event]:
    """What happened to a box, by place and time."""
    if number.endswith("0000000"):
        return []
    draw = random.Random(number)
    vessel = draw.choice(("MSC SAMPLE", "ZIM EXAMPLE"))
    return [
        Event(0, "GATE-OUT-EMPTY", True, "2026-10-29T16:42:00.000", "", ""),
        Event(1, "GATE-IN", False, "2026-10-30T10:02:00.000", "2026-11-01T14:00:00.000", ""),
        Event(1, "LOAD", False, "2026-11-01T00:15:00.000", "2026-11-01T14:00:00.000", vessel),
        Event(2, "DISCHARG", False, "2026-11-12T12:49:00.000", "2026-11-12T08:00:00.000", vessel),
        Event(2, "LOAD", False, "2026-11-16T01:11:00.000", "2026-11-15T18:30:00.000", vessel),
        Event(3, "DISCHARG", False, "", "2026-12-11T07:00:00.000", vessel),
        Event(3, "GATE-OUT", False, "", "2026-12-14T10:00:00.000", ""),
    ]


def _page(number: str, *, second: bool) -> dict[str, Any]:
    """The first page has the first two places, the second the others."""
    shown = [event for event in events(number) if (event.place >= 2) == second]
    places = dict.fromkeys(event.place for event in shown)
    locations = [
        {**_place(place), "events": [_shown(event) for event in shown if event.place == place]} for place in places
    ]
    box = {"container_num": number, "container_size": "40", "container_type": "Dry", "iso_code": "42G0"}
    following = {} if second or not shown else {"next": SECOND_PAGE}
    return {
        "isContainerSearch": True,
        "origin": {**_place(0), "events": [{"activity": "NOT OF THE BOX"}]},
        "destination": _place(3),
        "containers": [{**box, "operator": "LINE", "locations": locations, "eta_final_delivery": "2026-12-14"}],
        "paging": {"size": 2, **following},
    }


def _place(place: int) -> dict[str, Any]:
    terminal, city, country = PLACES[place]
    return {
        "terminal": terminal, "geo_site": f"9QYVWASPIUQB{place}", "city": city, "state": "",
        "country": f"The country {country}", "country_code": country, "site_type": "TERMINAL",
    }  # fmt: skip


def _shown(event: Event) -> dict[str, Any]:
    made: dict[str, Any] = {"activity": event.activity, "stempty": event.is_empty, "actfor": "EXP"}
    for key in ("actual_time", "expected_time"):
        if text := getattr(event, key):
            made[key] = text
    if event.vessel:
        made |= {"vessel_name": event.vessel, "voyage_num": "204E", "vessel_num": "Z77"}
    return {**made, "rkem_move": event.activity, "is_cancelled": False, "is_current": False}
