"""``bench geo`` from its begin to its end, with few calls."""

from scripts.bench import geo_pages
from scripts.bench.geo import IDLE, NEW, Plan, measure
from scripts.terminal import Quiet


def test_a_page_crosses_the_ocean_as_its_records():
    """The same page, of half a megabyte as the site sends it; each call compares its records."""
    page = geo_pages.made()["500kB-plain"]
    found = measure(Plan((6.0,), (page.name,), busy_calls=1, calls=1, idle_seconds=0.5), Quiet())
    assert len(found.cells) == 3
    for cell in found.cells:
        assert len(page.sent) < cell.direct.bytes_a_call < 1.1 * len(page.sent)
        assert 0 < cell.region.bytes_a_call < page.records_bytes, "they travel packed"
        assert all(ms > 0 for ms in (*cell.direct.ms, *cell.region.ms))
    new, idle = (found.cell(page.name, 6.0, connections) for connections in (NEW, IDLE))
    assert new.direct.bytes_a_call > idle.direct.bytes_a_call
    assert new.direct.median_ms >= 18, "a connection, TLS, and the page: a round trip each"
