"""``nearfetch dead``: handles dead letters, which the gateways keep in the hub's Redis (web.flow.dead).

The commands read and change them in Redis directly, with the settings of the operator who calls them. Clients have no access.
A retry goes to the gateway over HTTP, like any other request.
"""

# ruff: noqa: D301 - \b tells click to keep the lines of a paragraph

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from click.shell_completion import CompletionItem
from msgspec import Struct

from scripts.commands.options import NO_SERVER, data_option, gateway_options, json_option, load_near, say_hub_away
from scripts.stack.gateway_client import GatewayClient, NoGateway, Refused
from scripts.terminal import say, say_json

SOME_LEFT: Final = 1
COMPLETED_MAX: Final = 50


class Asked(Struct, frozen=True):
    """The part of a task's message, of any version, that makes a new request."""

    source: str
    params: dict[str, Any] = {}
    max_age: float = 0.0


def letter_ids(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The ids of dead letters for the shell, latest first; none when the hub can't be asked at once."""
    try:
        with _letters(context.params.get("data")) as letters:
            found = [(one.id, one.cause) for one in reversed(letters.all())]
    except (SystemExit, Exception):  # noqa: BLE001 - a person is waiting for the completion, and wants no traceback
        return []
    return [CompletionItem(one, help=cause) for one, cause in found if one.startswith(incomplete)][:COMPLETED_MAX]


some = click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=letter_ids)
every = click.option("--all", "is_all", is_flag=True, help="All of them.")


@click.group()
def dead() -> None:
    """Handles dead letters: messages that nobody could process. Their tasks have failed.

    The latest thousand are kept, for a week. A message becomes a dead letter when a bridge can't read it, or when the
    broker gives up on it: nearfetch dead show says why.

    \b
    nearfetch dead list
    nearfetch dead retry --all
    """


@dead.command("list")
@json_option
@data_option
def list_letters(as_json: bool, data: Path | None) -> None:
    """Lists dead letters, oldest first.

    \b
    nearfetch dead list
    nearfetch dead list --json | jq -r '.[].id'
    """
    from scripts.terminal import counted  # noqa: PLC0415

    with _letters(data) as letters:
        found = letters.all()
    if as_json:
        say_json([_shown(one) for one in found])
        return
    for one in found:
        what = one.source or one.kind or "?"
        say(f"{one.id:<26}  {_time(one)}  {one.region or '-':<5} {what:<20} {one.cause}")
    say(counted(len(found), "dead letter") + ("." if found else ": every message was taken."))


@dead.command()
@click.argument("identifier", metavar="ID", shell_complete=letter_ids)
@json_option
@data_option
def show(identifier: str, as_json: bool, data: Path | None) -> None:
    """Shows a dead letter: its cause and its body.

    Ends with 0, or with 1 when there is no such dead letter.

    \b
    nearfetch dead show 01JDFQ2V7C0000000000000000
    """
    with _letters(data) as letters:
        found = letters.some([identifier])
    if not found:
        say(_unknown(identifier), err=True)
        sys.exit(SOME_LEFT)
    one = found[0]
    if as_json:
        say_json(_shown(one))
        return
    rows = {
        "kept": _time(one), "kind": one.kind, "task": one.task, "request": one.request, "region": one.region,
        "source": one.source, "from": one.queue, "reason": one.reason, "fault": one.fault, "deaths": str(one.deaths),
    }  # fmt: skip
    for name, value in rows.items():
        if value:
            say(f"{name:<8} {value}")
    is_cut = " (cut)" if len(one.body.encode()) < one.body_bytes else ""
    say(f"body     {one.body_bytes} bytes{is_cut}\n{one.body}")


@dead.command()
@some
@every
@gateway_options
@json_option
def retry(ids: tuple[str, ...], is_all: bool, url: str, data: Path | None, as_json: bool) -> None:
    """Retries dead letters: posts a new request for each, whose attrs name the old one.

    A letter is dropped once its new request is accepted; others stay. Only tasks can be retried, not cancels.

    Ends with 0 when all were accepted, 1 when some were not, 2 for wrong usage, 3 when the hub or the gateway is away.

    \b
    nearfetch dead retry 01JDFQ2V7C0000000000000000
    nearfetch dead retry --all --json | jq -r '.[].retried_as'
    """
    answers: list[dict[str, Any]] = []
    code = 0
    try:
        client = GatewayClient.found(url, data)
        with _letters(data) as letters:
            for identifier, letter in _chosen(letters, ids, is_all=is_all):
                answer = {"id": identifier, "retried_as": None, "fault": None, **_again(client, letter)}
                if answer["retried_as"]:
                    letters.drop([identifier])
                answers.append(answer)
                if not as_json:
                    _say(identifier, f"retried as {answer['retried_as']}", answer["fault"])
    except NoGateway as error:
        say(str(error), err=True)
        code = NO_SERVER
    if as_json:
        say_json(answers)
    sys.exit(code or (SOME_LEFT if any(one["fault"] for one in answers) else 0))


@dead.command()
@some
@every
@json_option
@data_option
def drop(ids: tuple[str, ...], is_all: bool, as_json: bool, data: Path | None) -> None:
    """Deletes dead letters. Their tasks stay failed.

    Ends with 0, or with 1 when some did not exist.

    \b
    nearfetch dead drop 01JDFQ2V7C0000000000000000
    nearfetch dead drop --all
    """
    answers: list[dict[str, Any]] = []
    with _letters(data) as letters:
        for identifier, letter in _chosen(letters, ids, is_all=is_all):
            fault = None if letter is not None and letters.drop([identifier]) else _unknown(identifier)
            answers.append({"id": identifier, "fault": fault})
            if not as_json:
                _say(identifier, "dropped", fault)
    if as_json:
        say_json(answers)
    sys.exit(SOME_LEFT if any(one["fault"] for one in answers) else 0)


@contextmanager
def _letters(data: Path | None) -> Iterator[Any]:
    """The dead letters of the hub that the settings name. Ends the command when the hub does not answer."""
    import redis  # noqa: PLC0415 - each import delays the shell

    from regions import connect  # noqa: PLC0415
    from web.flow.dead import DeadLetters  # noqa: PLC0415

    settings = load_near(data)
    with connect.open_redis(settings.hub.redis, name="dead", connections=1) as client:
        try:
            yield DeadLetters(client)
        except redis.exceptions.RedisError as error:
            say_hub_away(settings, error)
            sys.exit(NO_SERVER)


def _chosen(letters: Any, ids: Sequence[str], *, is_all: bool) -> list[tuple[str, Any]]:
    """Each requested id, once, with its letter, or with None when there is none."""
    if bool(ids) == is_all:
        raise click.UsageError("expected IDs or --all" + (", found both" if ids else ", found neither"))
    if is_all:
        return [(one.id, one) for one in letters.all()]
    found = {one.id: one for one in letters.some(list(dict.fromkeys(ids)))}
    return [(one, found.get(one)) for one in dict.fromkeys(ids)]


def _again(client: GatewayClient, letter: Any) -> dict[str, str]:
    """Posts the request that a letter asked for. Returns ``retried_as`` with its id, or the ``fault``."""
    if letter is None:
        return {"fault": "there is no such dead letter"}
    if letter.kind in ("cancel", "entry"):
        return {"fault": f"expected a task, found {'a cancel' if letter.kind == 'cancel' else 'an entry'}"}
    try:
        asked = msgspec.json.decode(letter.body, type=Asked)
    except (ValueError, RecursionError) as error:
        is_cut = len(letter.body.encode()) < letter.body_bytes
        return {"fault": "its body was too long to be kept" if is_cut else f"its body can't be read: {error}"}
    document = {
        "sources": [{"source": asked.source, "params": asked.params}],
        "max_age": asked.max_age,
        "attrs": {"retry_of": {"request": letter.request, "task": letter.task}},
    }
    try:
        return {"retried_as": client.post("/v1/requests", document)["id"]}
    except Refused as refused:
        return {"fault": str(refused)}


def _say(identifier: str, done: str, fault: str | None) -> None:
    say(f"{identifier}  {fault or done}", err=bool(fault))


def _unknown(identifier: str) -> str:
    return f"There is no dead letter {identifier}. nearfetch dead list shows all."


def _shown(letter: Any) -> dict[str, Any]:
    shown: Callable[[Any], dict[str, Any]] = msgspec.to_builtins
    return {**shown(letter), "cause": letter.cause, "at": _time(letter)}


def _time(letter: Any) -> str:
    from jobs.contract import rfc3339  # noqa: PLC0415

    return rfc3339(letter.at_ms)
