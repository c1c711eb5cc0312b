"""Cron rules of [scale]: which one counts at a time, and every fault of the table at once."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from regions import settings
from regions.faults import Faults
from regions.schedule import Scale, ScaleRule, bounds_at, next_change

BERLIN = "Europe/Berlin"
OFFICE = Scale(
    min=1,
    max=4,
    schedule=(
        ScaleRule(cron="0 6 * * 1-5", timezone=BERLIN, min=3),
        ScaleRule(cron="0 20 * * *", timezone=BERLIN, max=2),
        ScaleRule(cron="0 23 * * *", timezone=BERLIN),
    ),
)


def berlin(*when: int) -> float:
    return datetime(*when, tzinfo=ZoneInfo(BERLIN)).timestamp()


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ((2026, 11, 24, 5, 59, 59), (1, 4)),  # the rule of the evening before ended at 23
        ((2026, 11, 24, 6, 0, 0), (3, 4)),
        ((2026, 11, 24, 19, 59, 59), (3, 4)),
        ((2026, 11, 24, 20, 0, 0), (1, 2)),
        ((2026, 11, 24, 23, 0, 0), (1, 4)),
        ((2026, 11, 28, 12, 0, 0), (1, 4)),  # a Saturday
        ((2026, 7, 1, 6, 0, 0), (3, 4)),  # in summer time too
    ],
)
def test_a_rule_counts_from_its_time_until_the_next_one(when, expected):
    bounds = bounds_at(OFFICE, berlin(*when))
    assert (bounds.min, bounds.max) == expected


def test_of_rules_that_begin_together_the_last_one_counts():
    rules = (ScaleRule(cron="0 6 * * *", min=2), ScaleRule(cron="0 6 * * *", min=3))
    assert bounds_at(Scale(max=4, schedule=rules), berlin(2026, 11, 24, 9, 0)).rule is rules[1]


def test_without_rules_the_table_counts_and_nothing_changes():
    assert (bounds_at(Scale(), 0.0).min, next_change(Scale(), 0.0)) == (2, None)


def test_the_next_change_is_the_next_time_of_any_rule():
    when, rule = next_change(OFFICE, berlin(2026, 11, 24, 6, 0, 0))
    assert (when, rule.max) == (berlin(2026, 11, 24, 20, 0, 0), 2)


@given(
    at=st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),  # noqa: DTZ001 - in the zone below
    cron=st.sampled_from(["0 6 * * 1-5", "*/7 * * * *", "30 2 * * *", "0 0 1 * *", "15 3 * * SUN"]),
    zone=st.sampled_from([BERLIN, "UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]),
)
def test_looking_back_finds_what_looking_ahead_does(at, cron, zone):
    now = at.replace(tzinfo=UTC).timestamp()
    rule = ScaleRule(cron=cron, timezone=zone, min=3)
    begins = []
    back = timedelta(days=40 if cron.startswith("0 0 1") else 8)  # as rarely as it begins: of some there are 200 a day
    for when in CronSim(cron, datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(zone)) - back):
        if when.timestamp() > now:
            break
        begins.append(when.timestamp())
    ahead, _ = next_change(Scale(max=4, schedule=(rule,)), begins[-1])
    assert bounds_at(Scale(max=4, schedule=(rule,)), now).rule is rule
    assert begins[-1] <= now < ahead


TABLE = """
[scale]
min = 5
max = 2
cooldown_seconds = 0
[[scale.schedule]]
cron = "0 25 * * *"
timezone = "Europe/Berlim"
mix = 3
[[scale.schedule]]
min = 0
"""


def told(tmp_path, text: str) -> list[str]:
    (tmp_path / "fra.toml").write_text(text)
    with pytest.raises(Faults) as caught:
        settings.load({"NEARFETCH__REGIONS__PATH": str(tmp_path)})
    return [str(fault) for fault in caught.value.faults]


def test_all_faults_of_the_rules_are_told_at_once_with_their_lines(tmp_path):
    text = "\n".join(told(tmp_path, TABLE))
    for expected in (
        "fra.toml:5: scale.cooldown_seconds: expected",
        'fra.toml:7: scale.schedule.0.cron: expected five fields, minute hour day-of-month month day-of-week, found "0 25',
        'fra.toml:8: scale.schedule.0.timezone: expected the name of a time zone, like "Europe/Berlin", found "Europe/Berlim"',
        'fra.toml:9: scale.schedule.0.mix: unknown key; did you mean "min"?',
        "fra.toml:10: scale.schedule.1.cron: expected five fields",
        "fra.toml:11: scale.schedule.1.min: expected",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[scale]\nmin = 5\nmax = 2\n", "fra.toml:3: scale.max: expected at least min, which is 5, found 2"),
        ("[scale]\nmin = 5\n", "fra.toml:1: scale.max: expected at least min, which is 5, found 4"),
        (
            '[scale]\n[[scale.schedule]]\ncron = "0 6 * * *"\nmin = 9\n',
            "fra.toml:4: scale.schedule.0.min: expected at most max, which is 4, found 9",
        ),
        ("[scale]\nschedule = 5\n", "fra.toml:2: scale.schedule: expected a list of tables, found 5"),
        ("[scale]\nschedule = [5]\n", "fra.toml:2: scale.schedule.0: expected a table, found 5"),
    ],
)
def test_a_floor_above_its_ceiling_and_a_list_that_is_none_are_refused(tmp_path, text, expected):
    assert expected in "\n".join(told(tmp_path, text))


def test_what_is_wrong_with_one_region_does_not_matter_to_another(tmp_path):
    (tmp_path / "fra.toml").write_text("[scale]\nmax = 7\n")
    (tmp_path / "nyc.toml").write_text("[scale]\nmax = 0\n")
    environ = {"NEARFETCH__REGIONS__PATH": str(tmp_path), "NEARFETCH__REGION__NYC__SCALE__MIN": "1"}
    found = settings.load(environ, only="fra")
    assert {name: region.scale.max for name, region in found.region.items()} == {"fra": 7}
    with pytest.raises(Faults, match=r"nyc.toml:2: scale.max: expected"):
        settings.load(environ, only="nyc")
