"""What a region's user may do at the hub's Redis, and whether a server lets it do that and no more.

Whoever has a region's credentials has these rights: they reach the region's own results and its own stream, by one command
each, and nothing that another region needs.
"""

from collections.abc import Iterator
from typing import Final

import redis

from regions import names
from regions.durability import Shortfall
from regions.script import send, value

# What redis-py says when it connects, and what a region asks: the time, and when what it appended is in the file.
CONNECTION: Final = "+hello +auth +ping +select +client|setname +client|setinfo +time +waitaof +multi +exec +discard"


def rules(region: str) -> str:
    """The rules of the region's user, as ``ACL SETUSER`` takes them: append its results and its news, ask for the time."""
    return (
        f"resetkeys resetchannels -@all {CONNECTION} "
        f"(%W~{names.result(region, '*')} -@all +set) (%W~{names.out_stream(region)} -@all +xadd)"
    )


def shortfalls(client: redis.Redis, region: str) -> list[Shortfall]:
    """What its user may not do and must, or may do and must not. Raises what redis-py raises, also where there is no such user."""
    user = names.hub_user(region)
    mend = f"ACL SETUSER {user} resetkeys clearselectors {rules(region)}, then ACL SAVE"
    found = []
    for command, must in _asked(region):
        may = value(send(client, [("ACL", "DRYRUN", user, *command)], [])[0]) == b"OK"
        if may != must:
            said = "is allowed" if may else "is refused"
            expected = "allowed" if must else "refused"
            found.append(Shortfall(f"{user}: {' '.join(command)}", expected, said, mend))
    return found


def _asked(region: str) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Commands, and whether a region's user must be allowed them."""
    own, stream = names.result(region, "TASK"), names.out_stream(region)
    other = names.result(f"{region}-other", "TASK")
    for must in (
        ("TIME",), ("WAITAOF", "1", "0", "0"), ("MULTI",), ("EXEC",), ("PING",), ("CLIENT", "SETNAME", "x"), ("SELECT", "0"),
        ("SET", own, "x", "NX", "PXAT", "1"), ("XADD", stream, "*", "k", "v"),
    ):  # fmt: skip
        yield must, True
    for never in (
        ("SET", stream, "x"), ("XADD", own, "*", "k", "v"), ("SET", own, "x", "GET"), ("SET", other, "x"),
        ("SET", names.result(names.settled(region), "TASK"), "x"), ("SET", names.ledger("REQUEST"), "x"),
        ("XADD", names.out_stream(f"{region}-other"), "*", "k", "v"), ("GET", own), ("DEL", own), ("DEL", stream),
        ("CLIENT", "PAUSE", "1"), ("CLIENT", "KILL", "TYPE", "normal"), ("CLIENT", "NO-EVICT", "on"), ("CLIENT", "LIST"),
        ("PUBLISH", names.WAKE, "x"), ("EVAL", "return 1", "0"), ("CONFIG", "GET", "*"), ("FLUSHALL",), ("KEYS", "*"),
    ):  # fmt: skip
        yield never, False
