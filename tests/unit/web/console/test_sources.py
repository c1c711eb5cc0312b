"""The page of one source: its limits, what its runs showed, and in how many records its fields stand."""

from web.console import sources

LIMITS = {"rate": "30/min", "concurrency": 1, "timeout_seconds": 10.0}
SCHEMA = {"properties": {"name": {"type": "string"}, "price": {"type": ["string", "null"]}}}


def facts(**of) -> dict[str, object]:
    found = {
        "region": "fra",
        "standby": [],
        "pinned": False,
        "params": {},
        "limits": LIMITS,
        "definition": "9f2c01ab",
        "regions": {},
    }
    return dict(sources._facts({**found, **of}))


def learned(
    last: float | None, before: float | None, coverage: dict | None = None, success: float | None = 1.0
) -> dict:
    figure = {"last": last, "before": before}
    return {
        "runs": 20, "before": 40, "success": success, "rows": figure, "raw_bytes": figure, "busy_ms": figure, "ratio": figure,
        "coverage": coverage or {}, "health": "ok", "since": "2026-11-29T12:00:00.000Z",
    }  # fmt: skip


def test_the_limits_of_a_source_are_those_of_its_definition():
    assert (facts()["rate"], facts()["at once"]) == ("30/min", "1")
    assert facts(limits={**LIMITS, "rate": ""})["rate"] == "not limited"


def test_no_field_stands_in_the_records_of_runs_that_had_none():
    """The selectors broke: every run failed, and nothing can be said of its fields."""
    text = sources._fields(SCHEMA, learned(None, 30.0)).text
    assert (text.count("unknown"), text.count("100%")) == (2, 2), "now and before, of both fields"
    text = sources._fields(SCHEMA, learned(30.0, 30.0, {"price": {"last": 0.4, "before": 1.0}})).text
    assert (text.count("100%"), text.count("40.0%")) == (3, 1)


def test_too_few_runs_are_said_once():
    assert "too few runs to compare: 60" in sources._learned(learned(None, None, success=None)).text
    assert "<table" in sources._learned(learned(None, 30.0, success=0.0)).text
