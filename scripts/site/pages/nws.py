"""A weather service's forecast of a grid point: GeoJSON, fourteen half days, 12 KB. The weather is made up."""

import json
import random
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from scripts.site.pages.page import Answer, Asked

ORIGINS: Final = ("api.weather.gov",)
START: Final = "/gridpoints/TOP/31,80/forecast"
OFFICES: Final = ("TOP", "OKX", "SEW")
PERIODS: Final = 14
DAYS: Final = ("Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Monday")
_PATH: Final = re.compile(r"/gridpoints/([A-Z]{3})/(\d+),(\d+)/forecast")


@dataclass(frozen=True)
class Period:
    """A half day; ``rain_percent`` is None where nothing is said."""

    number: int
    name: str
    start: str
    end: str
    is_daytime: bool
    temperature: int
    rain_percent: int | None
    wind_speed: str
    wind_direction: str
    short: str
    detailed: str


def answer(asked: Asked) -> Answer | None:
    """A grid point's forecast, or a problem document where the office does not exist."""
    found = _PATH.fullmatch(asked.path)
    if found is None:
        return None
    if found[1] not in OFFICES:
        problem = {"type": "https://api.weather.gov/problems/InvalidPoint", "title": "Invalid point", "status": 404}
        return Answer(json.dumps(problem).encode(), "application/problem+json", 404)
    body = _forecast(found[1], int(found[2]), int(found[3]))
    return Answer(json.dumps(body, indent=4).encode(), "application/geo+json")


@cache
def periods(office: str, x: int, y: int) -> list[Period]:
    """The half days from Tuesday, 24 November 2026 on, in the office's winter time."""
    draw = random.Random(f"{office} {x} {y}")
    return [_period(draw, number) for number in range(1, PERIODS + 1)]


def _period(draw: random.Random, number: int) -> Period:
    day, is_night = divmod(number - 1, 2)
    rain = draw.choice((None, None, 20, 40, 80))
    low = draw.randrange(5, 15)
    sky = draw.choice(("Mostly Clear", "Partly Sunny", "Chance Showers And Thunderstorms", "Patchy Fog"))
    start, end = (f"{24 + day}T06", f"{24 + day}T18") if not is_night else (f"{24 + day}T18", f"{25 + day}T06")
    temperature = draw.randrange(-12, 40)
    likely = "" if rain is None else f" Chance of precipitation is {rain}%."
    return Period(
        number=number,
        name=DAYS[day] + (" Night" if is_night else ""),
        start=f"2026-11-{start}:00:00-06:00".replace("11-31", "12-01"),
        end=f"2026-11-{end}:00:00-06:00".replace("11-31", "12-01"),
        is_daytime=not is_night,
        temperature=temperature,
        rain_percent=rain,
        wind_speed=f"{low} to {low + 5} mph" if draw.random() < 0.5 else f"{low} mph",
        wind_direction=draw.choice(("N", "NNE", "SW", "WNW")),
        short=sky,
        detailed=f"{sky}, with a {'low' if is_night else 'high'} near {temperature}.{likely}",
    )


def _forecast(office: str, x: int, y: int) -> dict[str, Any]:
    corner = [-97.0 + x / 100, 39.0 + y / 100]
    return {
        "@context": ["https://geojson.org/geojson-ld/geojson-context.jsonld", {"@version": "1.1", "wx": "urn:sample#"}],
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[corner[0] + dx, corner[1] + dy] for dx, dy in _RING]]},
        "properties": {
            "units": "us", "forecastGenerator": "BaselineForecastGenerator", "generatedAt": "2026-11-24T10:42:44+00:00",
            "updateTime": "2026-11-24T10:16:20+00:00", "validTimes": "2026-11-24T04:00:00+00:00/P7DT21H",
            "elevation": {"unitCode": "wmoUnit:m", "value": 256.032},
            "periods": [_shown(period, office) for period in periods(office, x, y)],
        },
    }  # fmt: skip


_RING: Final = ((0.0, 0.0), (0.0, 0.022), (0.028, 0.022), (0.028, 0.0), (0.0, 0.0))


def _shown(period: Period, office: str) -> dict[str, Any]:
    return {
        "number": period.number, "name": period.name, "startTime": period.start, "endTime": period.end,
        "isDaytime": period.is_daytime, "temperature": period.temperature, "temperatureUnit": "F",
        "temperatureTrend": None,
        "probabilityOfPrecipitation": {"unitCode": "wmoUnit:percent", "value": period.rain_percent},
        "dewpoint": {"unitCode": "wmoUnit:degC", "value": 4.444444444444445},
        "relativeHumidity": {"unitCode": "wmoUnit:percent", "value": 71},
        "windSpeed": period.wind_speed, "windDirection": period.wind_direction,
        "icon": f"https://api.weather.gov/icons/land/{'day' if period.is_daytime else 'night'}/{office}?size=medium",
        "shortForecast": period.short, "detailedForecast": period.detailed,
    }  # fmt: skip
