"""The header ``traceparent`` (W3C Trace Context, level 1): which trace of its client a call belongs to.

The gateway makes no spans of its own: the header goes on as it came, with the task to its region and back with the result.
"""

import re
from typing import Final

HEADER: Final = "traceparent"

# Version, trace id, parent id, flags. A later version may have more after a further hyphen, of which nothing is known.
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_OURS: Final = "00"
_INVALID: Final = "ff"
_KNOWN_FLAGS: Final = 0x01  # sampled


def read(text: str) -> str:
    """The header in the form of version 00; "" if it is invalid or was not sent, which the standard has no error for."""
    found = _FORM.fullmatch(text)
    if found is None:
        return ""
    version, trace, parent, flags, more = found.groups()
    if version == _INVALID or not trace.strip("0") or not parent.strip("0") or (version == _OURS and more is not None):
        return ""
    if version != _OURS:
        flags = f"{int(flags, 16) & _KNOWN_FLAGS:02x}"
    return f"{_OURS}-{trace}-{parent}-{flags}"
