"""The page *Day*: a region's last day as a picture, as its workers recorded it minute by minute."""

from datetime import UTC
from typing import Final

from web.api.query import Query
from web.console.day_picture import picture, summary
from web.console.frame import Page, Parts, code, empty
from web.http.exchange import Exchange
from web.http.markup import Html, join, tag

REFRESH_SECONDS: Final = 60
TARGET_SECONDS: Final = 2.0  # of a region that went a moment ago


def page(parts: Parts, exchange: Exchange) -> Page:
    """``/day?region=``: the first region if none is named."""
    query = Query(exchange, ("region",))
    region = query.text("region") or next(iter(parts.settings.region), "")
    query.check()
    main = join(
        tag("h1", "Day"), _choice(parts, region), _of(parts, region) if region else empty("There is no region.")
    )
    return Page("Day", main, styles=("figures.css",))


def _choice(parts: Parts, chosen: str) -> Html:
    links = (
        tag(
            "li",
            tag("a", one.title or name, href=f"/day?region={name}", aria_current="page" if name == chosen else None),
        )
        for name, one in list(parts.settings.region.items())
    )
    return tag("nav", tag("ul", links), class_="choice", aria_label="Regions")


def _of(parts: Parts, region: str) -> Html:
    parts.overview.check_region(region)
    minutes = parts.overview.day_of(region)
    if not minutes:
        return empty("Nothing is recorded yet. Its workers report each minute about 20 seconds after its end.")
    found = parts.settings.region.get(region)
    target = found.scale.target_wait_seconds if found is not None else TARGET_SECONDS
    name = f"The last day of {region}"
    return tag(
        "div",
        tag("p", summary(minutes, target)),
        tag("div", picture(minutes, UTC, target, name=name), class_="scroll figure-box", tabindex=0, role="region", aria_label=name),
        tag("p", "A grey band: nothing is recorded, since no worker ran or the region was started then.", class_="muted small"),
        tag("h2", "As a file"),
        code(
            f"nearfetch day {region} -o day.svg                    # this picture, in your time zone\n"
            f"nearfetch day {region} > day.csv                     # its figures\n"
            f"nearfetch day {region} --replay day.csv -o other.svg # with the [scale] of today",
            label="The day as a file",
        ),
        id="day", data_refresh=REFRESH_SECONDS,
    )  # fmt: skip
