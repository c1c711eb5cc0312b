"""The rights of a region's user on the hub's Redis, and a check that a server grants these and no more.

Anybody who has a region's credentials has these rights. They permit one command each on the region's own results and on its
own stream, and nothing that another region needs.
"""

from collections.abc import Iterator
from typing import Final

import redis

from regions import names
from regions.durability import Shortfall
from regions.script import send, value

# The commands that redis-py sends when it connects, and a region's own: the time, and whether its entries are on disk.
CONNECTION: Final = "+hello +auth +ping +select +client|setname +client|setinfo +time +waitaof +multi +exec +discard"


def rules(region: str) -> str:
    """The rules for ``ACL SETUSER``: the region's user may write its results, append to its stream, and ask for the time."""
    return (
        f"resetkeys resetchannels -@all {CONNECTION} "
        f"(%W~{names.result(region, '*')} -@all +set) (%W~{names.out_stream(region)} -@all +xadd)"
    )


def shortfalls(client: redis.Redis, region: str) -> list[Shortfall]:
    """The rights that the region's user lacks or has too much.

    Raises redis-py's errors, also when there is no such user.
    """
    user = names.hub_user(region)
    mend = f"ACL SETUSER {user} resetkeys clearselectors {rules(region)}, then ACL SAVE"
    found = []
    for command, must in _asked(region):
        may = value(send(client, [("ACL", "DRYRUN", user, *command)], [])[0]) == b"OK"
        if may != must:
            found_right = "is allowed" if may else "is refused"
            expected = "allowed" if must else "refused"
            found.append(Shortfall(f"{user}: {' '.join(command)}", expected, found_right, mend))
    return found


def _asked(region: str) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Commands, each with whether the region's user must be allowed to call it."""
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
