"""``nearfetch webhook``: the webhooks of requests that have ended, which the hub's Redis keeps (web.hub.webhooks).

The commands read and change them in Redis directly, with the settings of the operator who calls them. Nothing shows a secret.
"""

# ruff: noqa: D301 - \b tells click to keep the lines of a paragraph

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from scripts.commands.options import data_option, json_option, load_near, with_hub
from scripts.terminal import say, say_json

if TYPE_CHECKING:
    import redis

    from web.hub.webhooks import Listed

SOME_LEFT: Final = 1


@click.group()
def webhook() -> None:
    """Lists the webhooks of requests that have ended, and has them called again.

    nearfetch webhooks, with an s, is the process that calls them.

    \b
    nearfetch webhook list --state failed
    nearfetch webhook resend 01M87RTYV9Y5XD88GQ9E7T7S17
    """


@webhook.command("list")
@click.option("--state", type=click.Choice(["due", "delivered", "failed"]), help="Only those in this state.")
@click.option("--tenant", help="Only those of this tenant.")
@click.option("--limit", "most", type=click.IntRange(1, 100_000), default=100, show_default=True)
@json_option
@data_option
def list_webhooks(state: str | None, tenant: str | None, most: int, as_json: bool, data: Path | None) -> None:
    """Lists webhooks, the latest end first: delivered ones as long as their requests are kept, others for a day more.

    \b
    nearfetch webhook list --state failed
    nearfetch webhook list --tenant shop --json | jq -r '.[].request'
    """

    def run(client: "redis.Redis", _: float) -> int:
        from web.hub import webhooks  # noqa: PLC0415

        found = webhooks.listed(client, tenant, state, most)
        if as_json:
            say_json([_document(one) for one in found])
            return 0
        for one in found:
            say(_line(one))
        if not found:
            say("There are none.")
        if any(one.webhook.state == "due" for one in found) and not webhooks.senders(client):
            say("No process calls webhooks. Start one: nearfetch webhooks", err=True)
        return 0

    sys.exit(_with_hub(data, run))


@webhook.command()
@click.argument("requests", nargs=-1, metavar="[REQUEST]...")
@click.option("--failed", "is_failed", is_flag=True, help="All that have failed.")
@click.option("--tenant", help="With --failed: only those of this tenant.")
@data_option
def resend(requests: Sequence[str], is_failed: bool, tenant: str | None, data: Path | None) -> None:
    """Has webhooks called again, under the same webhook-id, also those that were delivered.

    Ends with 0 when all are due again, 1 when some are not known or their requests have not ended, 2 for wrong usage, 3 when the hub is away.

    \b
    nearfetch webhook resend 01M87RTYV9Y5XD88GQ9E7T7S17
    nearfetch webhook resend --failed --tenant shop
    """
    if bool(requests) == is_failed:
        raise click.UsageError("expected REQUESTs or --failed" + (", found both" if is_failed else ", found neither"))

    def run(client: "redis.Redis", retry_seconds: float) -> int:
        from web.hub import webhooks  # noqa: PLC0415

        wanted = [one.request for one in webhooks.listed(client, tenant, "failed")] if is_failed else requests
        left = 0
        for one in (request.upper() for request in wanted):
            if webhooks.resend(client, one, retry_seconds):
                say(f"{one}  will be called again")
            else:
                left += 1
                say(f"{one}  has no webhook, or none any more, or has not ended", err=True)
        return SOME_LEFT if left else 0

    sys.exit(_with_hub(data, run))


def _with_hub(data: Path | None, command: Callable[["redis.Redis", float], int]) -> int:
    """Calls ``command`` with a client and for how long webhooks are tried; returns the exit code."""
    settings = load_near(data)
    return with_hub(settings, "webhook", lambda client: command(client, settings.webhooks.retry_seconds))


def _line(one: "Listed") -> str:
    view = one.webhook
    last = str(view.status or "") if not view.error else view.error
    following = f"  next {view.next_attempt_at}" if view.next_attempt_at else ""
    tenant = f"{one.tenant:<12} " if one.tenant else ""
    return f"{one.request}  {one.ended_at}  {tenant}{view.state:<9} {view.attempts:>2} calls  {view.url}  {last}{following}"


def _document(one: "Listed") -> dict[str, Any]:
    import msgspec  # noqa: PLC0415

    found: dict[str, Any] = msgspec.to_builtins(one)
    return {**found.pop("webhook"), **found}
