"""Content codings: which one is chosen, and that clients' own libraries read it."""

import gzip
import zlib

import pytest
from backports import zstd

from web.http.answer import Answer
from web.http.coding import Compressor, chosen, coded, is_codable, varying

BODY = b'{"title": "A Light in the Attic", "price": "51.77"}' * 200


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("", ""), ("gzip", "gzip"), ("GZIP", "gzip"), ("zstd", "zstd"), ("gzip, deflate, br, zstd", "zstd"), ("deflate, br", ""),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"), ("gzip;q=0", ""), ("zstd;q=0, gzip", "gzip"), ("*", "zstd"), ("*;q=0", ""),
        ("zstd;q=0, *", "gzip"), ("identity, gzip;q=0.5", ""), ("identity;q=0.5, gzip", "gzip"), ("identity;q=0", ""),
        ("gzip;q=2", ""), ("gzip;q=x", ""), ("gzip ; q=0.8", "gzip"), (", ,", ""), ("x" * 10_000, ""),
    ],
)  # fmt: skip
def test_coding_that_a_client_prefers(accept, coding):
    assert chosen(accept) == coding


@pytest.mark.parametrize(("coding", "read"), [("gzip", gzip.decompress), ("zstd", zstd.decompress)])
def test_coded_answer_is_read_back_and_its_etag_is_weak(coding, read):
    answer = Answer(200, BODY, [("Content-Type", "application/json"), ("ETag", '"abc"')])
    found = coded(varying(answer), coding)
    assert read(found.body) == BODY
    assert len(found.body) < len(BODY) / 10
    assert found.headers == [
        ("Content-Type", "application/json"), ("ETag", 'W/"abc"'), ("Vary", "Accept-Encoding"), ("Content-Encoding", coding),
    ]  # fmt: skip
    assert answer.headers == [("Content-Type", "application/json"), ("ETag", '"abc"')]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_each_piece_can_be_read_when_it_has_come(coding):
    compressor = Compressor(coding)
    reader = zstd.ZstdDecompressor() if coding == "zstd" else zlib.decompressobj(31)
    for piece in (b"one ", b"two ", b""):
        assert reader.decompress(compressor.add(piece) + compressor.flush()) == piece
    assert reader.decompress(compressor.end()) == b""
    assert reader.eof


@pytest.mark.parametrize(
    ("kind", "is_coded"),
    [
        ("application/json", True),
        ("text/csv; charset=utf-8; header=present", True),
        ("text/event-stream; charset=utf-8", False),
    ],
)
def test_texts_are_coded_and_event_streams_are_not(kind, is_coded):
    assert is_codable(Answer(200, b"", [("Content-Type", kind)])) is is_coded
