"""``nearfetch key``: the API keys of gateways, which the hub's Redis keeps (web.hub.keys).

The commands read and change them in Redis directly, with the settings of the operator who calls them. A key's text is shown once.
"""

# ruff: noqa: D301 - \b tells click to keep the lines of a paragraph

import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from scripts.commands.options import data_option, json_option, load_near, with_hub
from scripts.terminal import say, say_json

if TYPE_CHECKING:
    import redis

    from web.hub.keys import Key

NOT_FOUND: Final = 1
UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
DURATION: Final = re.compile(r"(\d{1,6})([smhd])")


class Duration(click.ParamType[int]):
    """A text like 90d, as milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Raises ``BadParameter`` for any other text."""
        if isinstance(value, int):
            return value
        found = DURATION.fullmatch(value)
        if found is None:
            self.fail(f'expected a number and s, m, h or d, like 90d, found "{value}"', param, ctx)
        return int(found[1]) * UNITS[found[2]] * 1000


def key_ids(context: click.Context, _: click.Parameter, incomplete: str) -> list[Any]:
    """The ids of keys for the shell; none when the hub can't be asked at once."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415

    found: list[Key] = []

    def read(client: "redis.Redis", _: int) -> int:
        found.extend(_all(client))
        return 0

    try:
        _with_hub(context.params.get("data"), read)
    except (SystemExit, Exception):  # noqa: BLE001 - a person is waiting for the completion, and wants no traceback
        return []
    return [CompletionItem(one.id, help=one.name) for one in found if one.id.startswith(incomplete)]


@click.group()
def key() -> None:
    """Makes, lists and ends the API keys of gateways that need one ([gateway] keys = true).

    \b
    nearfetch key create "order service" --tenant shop --scope read --scope submit
    nearfetch key list
    nearfetch key revoke 3k9f0a2b
    """


@key.command()
@click.argument("name")
@click.option(
    "--tenant", required=True, help="The tenant whose requests it makes and sees: small letters, digits, _ and -."
)
@click.option("--scope", "scopes", multiple=True, type=click.Choice(["read", "submit", "admin"]),
              help="What it may do; read and submit by default. admin sees the requests of all tenants.")  # fmt: skip
@click.option(
    "--expires",
    "expires_ms",
    type=Duration(),
    default=0,
    metavar="90d",
    help="After what time it ends; never by default.",
)
@click.option(
    "--requests-per-second",
    type=click.FloatRange(0),
    default=0.0,
    metavar="N",
    help="Requests a second that it may make.",
)
@click.option("--open-tasks", type=click.IntRange(0), metavar="N",
              help="Tasks that may wait or run at once; 1000 by default, 0 for any number.")  # fmt: skip
@click.option(
    "--bytes-kept", type=click.IntRange(0), default=0, metavar="N", help="Bytes of results that the hub may keep."
)
@click.option("--waiters", type=click.IntRange(0), default=0, metavar="N", help="Clients that may wait at once.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="PATTERN",
    help='Sources that it may ask, like "ecb.*"; all by default.',
)
@json_option
@data_option
def create(
    name: str, tenant: str, scopes: Sequence[Any], expires_ms: int, data: Path | None, *, as_json: bool, **limits: Any
) -> None:
    """Makes a key called NAME, and shows it once. A limit of 0 means no limit.

    \b
    nearfetch key create "order service" --tenant shop --expires 90d
    nearfetch key create rates --tenant bank --source "ecb.*" --requests-per-second 20 --open-tasks 500
    """

    def run(client: "redis.Redis", now_ms: int) -> int:
        from web.hub import keys  # noqa: PLC0415

        for text, pattern, what in ((name, keys.NAME, "NAME"), (tenant, keys.TENANT, "--tenant")):
            if not re.fullmatch(pattern, text):
                raise click.BadParameter(f'expected a text like {pattern}, found "{text[:60]}"', param_hint=what)
        secret = keys.new_secret()
        most = keys.OPEN_TASKS if limits["open_tasks"] is None else limits["open_tasks"]
        made = keys.Key(
            id=keys.new_id(),
            name=name,
            tenant=tenant,
            scopes=tuple(dict.fromkeys(scopes)) or ("read", "submit"),
            digest=keys.digest_of(secret),
            created_ms=now_ms,
            expires_ms=now_ms + expires_ms if expires_ms else 0,
            limits=keys.KeyLimits(**{**limits, "open_tasks": most, "sources": tuple(limits["sources"])}),
        )
        keys.write(client, [made])
        _show(made, keys.text_of(made.id, secret), as_json=as_json)
        return 0

    sys.exit(_with_hub(data, run))


@key.command("list")
@json_option
@data_option
def list_keys(as_json: bool, data: Path | None) -> None:
    """Lists keys, without their secrets.

    \b
    nearfetch key list
    nearfetch key list --json | jq -r '.[].id'
    """

    def run(client: "redis.Redis", now_ms: int) -> int:
        found = _all(client)
        if as_json:
            say_json([_document(one) for one in found])
            return 0
        if not found:
            say("There are no keys. Make one: nearfetch key create NAME --tenant TENANT")
        for one in found:
            ends = "expired" if one.is_expired(now_ms) else f"until {_time(one.expires_ms)}" if one.expires_ms else ""
            say(f"{one.id}  {one.tenant:<12} {', '.join(one.scopes):<22} {one.name:<24} {ends} {_limits(one)}".rstrip())
        return 0

    sys.exit(_with_hub(data, run))


@key.command()
@click.argument("key_id", metavar="ID", shell_complete=key_ids)
@click.option("--overlap", "overlap_ms", type=Duration(), default="1d", show_default=True, metavar="1d",
              help="For how long the old one still works.")  # fmt: skip
@json_option
@data_option
def rotate(key_id: str, overlap_ms: int, as_json: bool, data: Path | None) -> None:
    """Makes a new key in the place of ID, with the same name, tenant, scopes and limits, and shows it once.

    It lives as long as the old one was to live, counted from now.

    \b
    nearfetch key rotate 3k9f0a2b
    nearfetch key rotate 3k9f0a2b --overlap 0s
    """

    def run(client: "redis.Redis", now_ms: int) -> int:
        from msgspec import structs  # noqa: PLC0415

        from web.hub import keys  # noqa: PLC0415

        old = _known(client, key_id)
        secret = keys.new_secret()
        expires_ms = now_ms + old.expires_ms - old.created_ms if old.expires_ms else 0
        made = structs.replace(
            old, id=keys.new_id(), digest=keys.digest_of(secret), created_ms=now_ms, expires_ms=expires_ms
        )
        ends_ms = max(1, now_ms + overlap_ms)
        ended = structs.replace(old, expires_ms=min(ends_ms, old.expires_ms or ends_ms))
        keys.write(client, [made, ended])
        _show(made, keys.text_of(made.id, secret), as_json=as_json)
        if not as_json:
            say(f"The old one, {old.id}, ends {_time(ended.expires_ms)}.", err=True)
        return 0

    sys.exit(_with_hub(data, run))


@key.command()
@click.argument("key_ids_given", nargs=-1, required=True, metavar="ID...", shell_complete=key_ids)
@data_option
def revoke(key_ids_given: Sequence[str], data: Path | None) -> None:
    """Ends keys: within two seconds no gateway takes them any more. Requests that they made go on.

    \b
    nearfetch key revoke 3k9f0a2b
    """

    def run(client: "redis.Redis", _: int) -> int:
        from web.hub import keys  # noqa: PLC0415

        for one in key_ids_given:
            _known(client, one)
        for one in key_ids_given:
            keys.delete(client, one)
            say(f"{one} is revoked")
        return 0

    sys.exit(_with_hub(data, run))


def _with_hub(data: Path | None, command: Callable[["redis.Redis", int], int]) -> int:
    """Calls ``command`` with a client and the hub's time; returns the exit code."""
    from regions.connect import redis_now_ms  # noqa: PLC0415

    return with_hub(load_near(data), "key", lambda client: command(client, redis_now_ms(client)))


def _all(client: "redis.Redis") -> list["Key"]:
    from web.hub import keys  # noqa: PLC0415

    return sorted(keys.read(client).values(), key=lambda one: (one.tenant, one.created_ms))


def _known(client: "redis.Redis", key_id: str) -> "Key":
    """The key with this id. Ends the command when there is none."""
    from regions.faults import nearest  # noqa: PLC0415
    from web.hub import keys  # noqa: PLC0415

    found = keys.read(client)
    if key_id not in found:
        # Its secret must not stand in a terminal's history.
        shown = key_id if keys.parts_of(key_id) is None else "a whole key"
        say(f'There is no key with the id "{shown}"{nearest(key_id, found) if found else ""}', err=True)
        sys.exit(NOT_FOUND)
    return found[key_id]


def _show(made: "Key", text: str, *, as_json: bool) -> None:
    if as_json:
        say_json({**_document(made), "key": text})
        return
    say(text)
    ends = f", until {_time(made.expires_ms)}" if made.expires_ms else ""
    say(f"{made.name}: tenant {made.tenant}, {', '.join(made.scopes)}{ends} {_limits(made)}".rstrip(), err=True)
    say("This is shown once. Clients send it as Authorization: Bearer KEY.", err=True)


def _document(one: "Key") -> dict[str, Any]:
    import msgspec  # noqa: PLC0415

    return {
        "id": one.id,
        "name": one.name,
        "tenant": one.tenant,
        "scopes": list(one.scopes),
        "created_at": _time(one.created_ms),
        "expires_at": _time(one.expires_ms) if one.expires_ms else None,
        "limits": msgspec.to_builtins(one.limits),
    }


def _limits(one: "Key") -> str:
    import msgspec  # noqa: PLC0415

    return " ".join(f"{name}={_listed(value)}" for name, value in msgspec.to_builtins(one.limits).items() if value)


def _listed(value: Any) -> str:
    return ",".join(value) if isinstance(value, list | tuple) else f"{value:g}"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
