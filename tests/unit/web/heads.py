"""Frames as a region can send them whose credentials were stolen: odd members, odd types, blanks, and what breaks JSON by being cut."""

import json

import msgspec
from backports import zstd
from hypothesis import strategies as st

from jobs import contract

TASK = "01M8KNRTP6XJCP56PH3NGHW801"
_MEMBERS = (
    *contract.Result.__struct_fields__,
    "records",
    "traceparent",
    "id",
    "",
)
_ODD = st.sampled_from(
    [
        "1" + "0" * 40, "9" * 4_000, "9" * 6_000, "-1", "1e300", "1e400", "-1e300", "0.1", "true", "null", '"x"', '""', "[]", "{}", "NaN", "",
        "[" * 400 + "]" * 400, '{"a":' * 400 + "1" + "}" * 400, '[{"records":[1]}]', '{"records":[1],"type":"x","message":"m","origin":"o"}',
        '{"type":"x","message":"m","origin":"o","http_status":' + "9" * 400 + ',"retry_after":1e200}',
        '{"type":"x","message":"m","origin":"o","more":{"a":1,"records":[2]}}', '{"fetch_ms":1e308,"parse_ms":-1e308,"records":[]}',
        '{"records":1000000000000000}', '"\\ud800"', '"\\u0000\\u202e<script>"', '"\x01"', '"' + "x" * 2_000 + '"', '["\\",\\"records\\":["]',
    ]
)  # fmt: skip
_RECORDS = st.sampled_from(
    [
        b"[]", b'[{"a":1}]', b'[{"a":1},{"b":[1.50,1e400]}]', b"[1,2]", b"[[[]]]", b'["x",null]', b" [ ] ", b'{"a":1}', b"", b"[", b"[1}",
        b'[{"records":[]}]', b'[{"a":"\xff"}]', b'[{"a":' * 50 + b"1" + b"}]" * 50, b"[" * 900 + b"]" * 900, b"[" + b"7" * 5_000 + b"]", b'[{"a":"x\\r\\ny"},\r\n{"a":"=1"}]',
    ]
)  # fmt: skip
_BLANKS = st.sampled_from(["", "", "", " ", "\t", "\r", "  "])


def head(**members: object) -> str:
    """The head of an honest result with other members."""
    result = contract.Result(task=TASK, source="demo.list", region="fra", status="succeeded", count=1)
    return json.dumps({**msgspec.to_builtins(result), **members}, separators=(",", ":"))


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame: the head of an honest result into which members were put, with blanks around it."""
    pairs = [f"{json.dumps(name)}:{json.dumps(one)}" for name, one in json.loads(head()).items()]
    for name, odd in draw(st.lists(st.tuples(st.sampled_from(_MEMBERS), _ODD), max_size=4)):
        pairs.insert(draw(st.integers(0, len(pairs))), f"{json.dumps(name)}:{odd}")
    text = f"{draw(_BLANKS)}{{{','.join(pairs)}}}{draw(_BLANKS)}"
    records = draw(_RECORDS)
    mark, body = draw(st.sampled_from([(b"0", records), (b"z", zstd.compress(records)), (b"x", records)]))
    return mark + text.encode("utf-8", "surrogatepass") + b"\n" + body
