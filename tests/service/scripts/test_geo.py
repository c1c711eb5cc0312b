"""The direct way of ``bench geo``: the real site over TLS, through a real link that counts bytes."""

import itertools

import pytest

from scripts.bench import geo_pages
from scripts.bench.geo import BUSY, NEW, Direct, far_site

PACKETS = 1_500  # bytes, at most, of a request and of the head of its answer
HANDSHAKE = (1_000, 6_000)  # bytes of TLS 1.3 with a certificate, at least and at most


@pytest.fixture
def far(tmp_path):
    with far_site(tmp_path, 4.0) as site:
        yield site


@pytest.fixture
def client(far):
    direct = Direct(far.link, far.control, far.certificate)
    yield direct
    direct.close()


@pytest.mark.parametrize("name", geo_pages.made())
def test_all_bytes_of_a_page_are_counted_both_ways(client, name):
    """The call itself compares the records. A new connection costs a handshake more than one that is kept."""
    page = geo_pages.made()[name]
    sent = len(page.sent)
    kept, new = client.call(page, BUSY), client.call(page, NEW)
    kept()
    before = client.crossed()
    kept()
    of_kept = client.crossed() - before
    before = client.crossed()
    new()
    of_new = client.crossed() - before
    assert sent < of_kept < sent * 1.02 + PACKETS
    assert HANDSHAKE[0] < of_new - of_kept < HANDSHAKE[1]


def test_connections_are_kept_or_new_as_the_path_says(client, far):
    page = geo_pages.made()["small"]
    opened = [far.control.counts("site").accepted]
    for connections in (BUSY, BUSY, NEW, NEW, BUSY):
        client.call(page, connections)()
        opened.append(far.control.counts("site").accepted)
    assert [after - before for before, after in itertools.pairwise(opened)] == [1, 0, 1, 1, 0]
