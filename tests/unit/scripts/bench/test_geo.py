"""``bench geo``: its pages, its figures, and what it writes into docs."""

import shutil
from xml.etree import ElementTree as ET

import msgspec
import pytest
from click.testing import CliRunner

from jobs.definition.read import read
from jobs.page import Page
from jobs.parse.source import Source
from regions.settings import ROOT
from scripts.bench import geo_pages, geo_picture, geo_report
from scripts.bench.geo import BUSY, NEW, STATES, Cell, Measured, Side
from scripts.cli import main

LISTINGS = {"50kB": 50_000, "500kB": 500_000, "2MB": 2_000_000}


def measured(*rtts_ms: float, idle: float = 500.0) -> Measured:
    """Figures that can be told apart: a page takes 100 ms longer with new connections, and the region sends a tenth."""
    cells = [
        Cell(
            name, page.title, rtt_ms, connections,
            Side([rtt_ms + 100 * STATES.index(connections)] * 3, len(page.sent) + 1_000.0),
            Side([rtt_ms + 10.0] * 3, (len(page.sent) + 1_000) / 10),
        )
        for rtt_ms in rtts_ms for name, page in geo_pages.made().items() for connections in STATES
    ]  # fmt: skip
    return Measured(cells, idle)


@pytest.mark.parametrize("name", geo_pages.made())
def test_a_definition_reads_of_a_page_what_a_hand_does(tmp_path, name):
    """So that both ways bring the same records; a listing's are about a tenth of it."""
    page = geo_pages.made()[name]
    file = tmp_path / f"{page.source}.toml"
    file.write_text(geo_pages.definitions("fra")[page.source], encoding="utf-8")
    source = Source(read(file))
    params = {"connection": "kept", "n": 3} | ({"page": name} if page.source == geo_pages.LISTING else {})
    request = source.first(params, {})
    assert request.url == f"{geo_pages.ORIGIN}/kept/{name if page.source == geo_pages.LISTING else 'small'}?n=3"
    found = source.parse(Page(request, request.url, 200, {}, page.body))
    assert found.warnings == []
    assert msgspec.to_builtins(found.rows, enc_hook=str) == page.records == geo_pages.reader(page)(page.body)
    if page.source == geo_pages.LISTING:
        assert 1 / 14 < page.records_bytes / len(page.body) < 1 / 8
        assert not page.is_packed or 5 < len(page.body) / len(page.sent) < 10, "like pages of shops"


@pytest.mark.parametrize("name", LISTINGS)
def test_pages_have_their_size_and_are_the_same_each_time(name):
    page = geo_pages.made()[name]
    assert LISTINGS[name] <= len(page.body) < LISTINGS[name] * 1.1
    body, records = geo_pages.listing(LISTINGS[name])
    assert (body, records) == (page.body, page.records)


def test_ratios_are_of_medians_and_of_bytes_a_call():
    cell = Cell("a", "A", 80.0, NEW, Side([300.0, 100.0, 200.0], 9_000.0), Side([50.0, 100.0, 400.0], 3_000.0))
    assert (cell.times_quicker, cell.times_less) == (2.0, 3.0)


def test_one_call_a_minute_pays_for_the_idle_region_and_more_calls_share_it():
    found = measured(80.0, idle=100.0)
    cell = found.cell("50kB", 80.0, NEW)
    direct, region = found.a_minute(cell)
    assert (direct, region) == (cell.direct.bytes_a_call, cell.region.bytes_a_call + 6_000)
    calls = found.worth_it(cell)
    assert calls * direct == pytest.approx(calls * cell.region.bytes_a_call + 6_000)
    dearer = msgspec.structs.replace(cell, region=Side([1.0], direct + 1))
    assert found.worth_it(dearer) is None


def test_the_lines_say_where_the_region_does_not_pay():
    lines = list(geo_report.lines(measured(20.0, 80.0, 220.0)))
    assert sum(line.startswith("a round trip of") for line in lines) == 3
    assert lines[-3] == "an idle region and the hub send each other 500 B a second"
    assert lines[-2].startswith("one 50 kB page a minute: 9.2 kB directly, 30.9 kB through a region")
    assert lines[-1] == "from 3.6 of them a minute on, the region sends less"


def test_the_table_has_a_line_for_each_page_and_state_of_connections():
    rows = [line.split(" | ") for line in geo_report.table(measured(20.0, 80.0, 220.0)).splitlines()]
    assert {len(row) for row in rows} == {6}
    assert len(rows) == 2 + len(STATES) * len(geo_pages.made()) + 1
    assert rows[2][1:3] == ["busy", "20 → 30, **0.67 times**"], "what is not true is bold"
    assert rows[4][1:3] == ["new", "220 → 30, 7.3 times"]


def test_documents_are_written_between_the_marks_and_nowhere_else(tmp_path):
    """The real page has the marks; a second run replaces what the first one wrote."""
    shutil.copy(ROOT / "docs" / "performance.md", tmp_path)
    before = (tmp_path / "performance.md").read_text(encoding="utf-8")
    geo_report.write(measured(80.0), tmp_path)
    assert geo_report.write(measured(20.0, 80.0), tmp_path) == [tmp_path / "performance.md", tmp_path / "geo.svg"]
    after = (tmp_path / "performance.md").read_text(encoding="utf-8")
    for text in (before, after):
        assert text.count(geo_report.BEGIN) == text.count(geo_report.END) == 1
    (begin, _, was), (same, _, now) = before.partition(geo_report.BEGIN), after.partition(geo_report.BEGIN)
    assert begin == same
    assert was.partition(geo_report.END)[2] == now.partition(geo_report.END)[2]
    assert now.partition(geo_report.END)[0].strip().startswith(geo_report.table(measured(20.0, 80.0)).strip())
    (tmp_path / "performance.md").write_text("nothing")
    with pytest.raises(ValueError, match="expected the lines"):
        geo_report.write(measured(80.0), tmp_path)


def test_the_picture_is_read_on_any_background_runs_nothing_and_has_bars_as_long_as_their_figures():
    found = measured(20.0, 80.0, 220.0)
    text = geo_picture.drawn(found)
    tree = ET.fromstring(text)
    assert {element.tag.partition("}")[2] for element in tree.iter()} == {"svg", "title", "style", "text", "rect"}
    assert "prefers-color-scheme:dark" in text
    assert not any(word in text.lower() for word in ("script", "href", "url(", "@import"))
    texts = ["".join(element.itertext()) for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {page.title.partition(", ")[0] for page in geo_pages.made().values()} <= set(texts)
    assert texts.count("80 / 280") == texts.count("90 / 90") == len(geo_pages.made()), "the distance in the middle"
    bars = [element for element in tree.iter("{http://www.w3.org/2000/svg}rect") if element.get("x") == "140"]
    widths = [
        float(bar.get("width")) for bar in bars[:4]
    ]  # of the first page: directly (new, busy), the region (new, busy)
    assert widths == pytest.approx([200, 200 * 80 / 280, 200 * 90 / 280, 200 * 90 / 280], abs=0.1)
    width = float(tree.get("width"))
    assert all(float(element.get("x")) < width for element in tree.iter() if element.get("x"))


def test_json_has_every_call():
    found = msgspec.json.decode(msgspec.json.encode(geo_report.as_json(measured(80.0))))
    assert found["pages"]["50kB"].keys() == {"bytes", "sent_bytes", "records_bytes"}
    assert len(found["cells"]) == len(STATES) * len(geo_pages.made())
    first = found["cells"][0]
    assert (first["connections"], first["direct"]["ms"], first["times_less"]) == (BUSY, [80.0] * 3, 10.0)


@pytest.mark.parametrize("words", [["geo", "--rows", "tiny"], ["geo", "--ours"], ["--write"], ["moon"]])
def test_options_that_do_not_belong_together_are_refused(words):
    assert CliRunner().invoke(main, ["bench", *words]).exit_code == 2
