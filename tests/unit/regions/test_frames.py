"""Our frames of a published message are pika's, byte for byte."""

import pika
import pytest
from pika import frame, spec

from regions import frames


def by_pika(channel, exchange, routing_key, body, message_id, correlation_id, kind, frame_max):
    """What pika's own channel sends."""
    properties = pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        message_id=message_id,
        correlation_id=correlation_id,
        type=kind,
    )
    method = spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True)
    most = frame_max - spec.FRAME_HEADER_SIZE - spec.FRAME_END_SIZE
    parts = [frame.Method(channel, method).marshal(), frame.Header(channel, len(body), properties).marshal()]
    parts += [frame.Body(channel, body[start : start + most]).marshal() for start in range(0, len(body), most)]
    return b"".join(parts)


@pytest.mark.parametrize("size", [0, 1, 300, 4087, 4088, 4089, 8176, 200_000])
@pytest.mark.parametrize("frame_max", [4096, 131_072])
def test_they_are_what_pika_makes(size, frame_max):
    body = bytes(range(256)) * (size // 256 + 1)
    given = ("x.tasks", "fra.now", body[:size])
    ours = frames.published(
        7, *given, message_id="01J" + "x" * 23, correlation_id="é" * 9, kind="task", frame_max=frame_max
    )
    assert ours == by_pika(7, *given, "01J" + "x" * 23, "é" * 9, "task", frame_max)


def test_a_text_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="at most 255 bytes, found 256"):
        frames.published(1, "x", "k" * 256, b"{}", message_id="m", correlation_id="c", kind="task", frame_max=4096)
