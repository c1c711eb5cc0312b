"""A day's picture says when, how much and of what."""

from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from lxml import etree

from jobs.contract import Minute
from web.console.day_picture import picture, svg

BERLIN = ZoneInfo("Europe/Berlin")
NOON = 1_795_780_800.0  # 2026-11-27 12:00 UTC
SVG = "{http://www.w3.org/2000/svg}"


def minutes(count: int, *, first: float = NOON, lacks: range = range(0)) -> list[Minute]:
    return [
        Minute(first + 60 * number, arrived=number % 50, ended=number % 40, waiting=3, oldest_seconds=0.5, ready=2, wanted=3)
        for number in range(count)
        if number not in lacks
    ]  # fmt: skip


def drawn(*of: Minute, zone=UTC, title: str = "fra") -> etree._Element:
    return etree.fromstring(svg(list(of), title, zone, 2.0).encode())


def texts(root: etree._Element) -> list[str]:
    return [element.text for element in root.iter(f"{SVG}text")]


def axis(root: etree._Element) -> list[str]:
    return [text for text in texts(root) if len(text) == 5 and text[2] == ":"]


def test_a_day_has_full_hours_with_their_dates_and_the_zone():
    root = drawn(*minutes(1_440), zone=BERLIN)
    assert axis(root)[:3] == ["14:00", "16:00", "18:00"]
    assert "00:00" in axis(root)
    assert {"Fri 27 Nov", "Sat 28 Nov", "time of day, CET"} <= set(texts(root))


@pytest.mark.parametrize(
    ("count", "first", "second"),
    [(2, "12:00", "12:01"), (7, "12:00", "12:01"), (55, "12:00", "12:05"), (300, "12:00", "12:30")],
)
def test_a_shorter_time_has_marks_that_are_nearer(count, first, second):
    found = axis(drawn(*minutes(count)))
    assert found[:2] == [first, second]
    assert len(found) <= 13


def test_the_hour_that_there_is_twice_has_two_marks():
    """2026-10-25, when Berlin goes back from 3:00 to 2:00."""
    found = axis(drawn(*minutes(12 * 60, first=1_792_879_200.0), zone=BERLIN))
    assert found[:6] == ["00:00", "01:00", "02:00", "02:00", "03:00", "04:00"]


def test_the_legend_names_each_series_with_its_highest_value():
    found = texts(drawn(*minutes(60)))
    assert {"Tasks a minute", "Worker processes", "Longest wait of a task, s"} <= set(found)
    assert {"came, at most 49", "ended, at most 39", "ready, at most 2", "wanted, at most 3", "target, 2 s"} <= set(
        found
    )


def test_what_is_not_recorded_is_not_shown_as_nothing():
    root = drawn(*minutes(100, lacks=range(40, 60)))
    gaps = [element for element in root.iter(f"{SVG}rect") if element.get("class") == "gap"]
    assert len(gaps) == 4
    areas = [
        element
        for element in root.iter(f"{SVG}path")
        if element.get("class") == "area-a" and element.get("d").endswith("Z")
    ]
    assert len(areas) == 2


def test_a_file_has_colours_for_light_and_dark_and_no_attribute_has_style():
    text = svg(minutes(10), "fra", UTC, 2.0)
    assert "prefers-color-scheme:dark" in text
    assert "style=" not in text
    inline = picture(minutes(10), UTC, 2.0, name="The last day").text
    assert "<style" not in inline
    assert "style=" not in inline


def test_a_name_stays_text():
    root = drawn(*minutes(2), title='</text><script>alert(1)</script>&"')
    assert root.find(f".//{SVG}script") is None
    assert '</text><script>alert(1)</script>&"' in texts(root)


def test_numbers_of_any_size_are_drawn():
    drawn(Minute(NOON, arrived=10**15, oldest_seconds=1e15, ready=10**15), Minute(NOON + 60))
