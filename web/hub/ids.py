"""Ids: ULIDs (github.com/ulid/spec), made so that the id of a task contains that of its request.

The first 118 bits are the request's: 48 of milliseconds and 70 random ones. The last 10 bits count its tasks from 1; they are
0 in the request's own id.
"""

import os
import time
from typing import Final

from ulid import ULID
from ulid.base32 import ENCODE

TASKS_MAX: Final = 1023
_COUNTED: Final = 10  # bits
_LENGTH: Final = 26  # of a ULID
_DIGITS: Final = str.maketrans(ENCODE, "0123456789ABCDEFGHIJKLMNOPQRSTUV")  # as int() reads them


def new() -> str:
    """A new request's id. Ids of the same millisecond have no order."""
    made = int.from_bytes((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10), "big")
    return str(ULID.from_int(made >> _COUNTED << _COUNTED))


def task(request: str, number: int) -> str:
    """The id of a request's task, the first being number 1."""
    return f"{request[:-2]}{ENCODE[number >> 5]}{ENCODE[number & 31]}"  # the last 10 bits are the last two digits


def request_of(task: str) -> str:
    """The id of a task's request; raises ValueError when ``task`` is not a ULID."""
    return str(ULID.from_int(int(ULID.from_str(task)) >> _COUNTED << _COUNTED))


def made_ms(one: str) -> int:
    """When the id of a request or a task was made, in ms since the epoch by its gateway's clock. Raises ValueError for no ULID."""
    if len(one) != _LENGTH:
        raise ValueError(f"expected {_LENGTH} characters, found {len(one)}")
    return int(one[:10].translate(_DIGITS), 32)
