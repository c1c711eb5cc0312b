"""``nearfetch config``: shows the settings in force, and checks that the servers they name are up and set right."""

import json
from typing import Any, Final

import click
import msgspec

from regions import connect
from regions.egress import without_credentials
from regions.secret import is_password, is_secret
from regions.settings import Settings
from scripts.checks.servers import findings, policy_command
from scripts.stack.configuration import to_toml
from scripts.terminal import say, say_json
from web.http.server import connections_possible

HIDDEN: Final = "(hidden)"
PROXY: Final = "proxy"


def check(settings: Settings, *, as_json: bool) -> int:
    """Checks every server, and says what this machine permits; returns the exit code."""
    found = list(findings(settings))
    command = policy_command(settings)
    wanted = settings.gateway.connections_max
    connections = connections_possible(wanted)
    if as_json:
        listed = [
            {
                "what": one.what,
                "where": one.where,
                "fault": one.fault or None,
                "shortfalls": [msgspec.to_builtins(fall) for fall in one.shortfalls],
                "relaxed": one.relaxed,
            }
            for one in found
        ]
        say_json({"servers": listed, "policy_command": command, "connections_possible": connections})
    else:
        for one in found:
            mark = click.style("fault", fg="red") if one.is_bad else click.style("  ok ", fg="green")
            remark = one.fault or one.note
            say(f"{mark}  {one.what:<20} {one.where}{f'   {remark}' if remark else ''}")
            for fall in one.shortfalls:
                say(f"         {fall}{' (relaxed)' if one.relaxed else ''}\n           fix it: {fall.mend}")
        say(clients(connections, wanted))
        say("The queues need this policy. Set it once on the broker (scripts/up does so on its own):")
        say(f"  {command}")
    return 1 if any(one.is_bad for one in found) else 0


def clients(found: int, wanted: int) -> str:
    """A line that says how many clients a gateway could hold that is started from here."""
    less = f", of {wanted:,} (gateway.connections_max)" if found < wanted else ""
    return f"The limit of open files permits a gateway here {found:,} clients at the same time{less}"


def show(settings: Settings, *, as_json: bool) -> None:
    """Prints the settings, without secrets."""
    values = hidden(msgspec.to_builtins(settings))
    click.echo(json.dumps(values, ensure_ascii=False) if as_json else to_toml(values), nl=as_json)


def hidden(values: dict[str, Any]) -> dict[str, Any]:
    """The same values without passwords."""
    shown: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            shown[key] = hidden(value)
        elif value and is_password(key):
            shown[key] = HIDDEN
        elif isinstance(value, str) and is_secret(key):
            shown[key] = without_credentials(value) if key == PROXY else connect.without_password(value)
        else:
            shown[key] = value
    return shown
