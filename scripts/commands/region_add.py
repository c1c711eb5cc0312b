"""``nearfetch region add``: what a new region needs, in the order in which it is made, and the commands that make it.

Nothing is changed. The rights stand in ``scripts.stack.hub_acl`` and ``regions.topology``; ``nearfetch config check`` tries them.
"""

import json
import shlex
from typing import Final

from msgspec import Struct

from regions import names, topology
from regions.settings import Settings
from scripts.stack import hub_acl, policy
from scripts.terminal import say, say_json

PASSWORD: Final = "PASSWORD"  # noqa: S105 - stands for one
FILE: Final = """title = "{title}"
[redis]
url_file = "/etc/nearfetch/{name}.redis"
[scale]
min = 2
max = 4"""


class Step(Struct, frozen=True):
    """One thing to do: ``where``, what it is for, and its lines, which are commands unless ``is_file``."""

    where: str
    what: str
    lines: list[str]
    is_file: bool = False


def steps(settings: Settings, name: str) -> list[Step]:
    """What makes a region of this name."""
    user, vhost = names.hub_user(name), policy.virtual_host(settings.hub.amqp)
    rights = topology.region_rights(name)
    permissions = [rights["configure"], rights["write"], rights["read"]]
    limits = json.dumps({"max-connections": topology.CONNECTIONS_MAX})
    folders = settings.regions.folders
    path = f"{folders[-1]}/{name}.toml" if folders else f"regions/{name}.toml of the checkout"
    return [
        Step("hub's Redis", "a user, in redis-cli", [f"ACL SETUSER {user} on >{PASSWORD} {hub_acl.rules(name)}", "ACL SAVE"]),
        Step(
            "RabbitMQ",
            "a user, and the queues' policy if it is not set yet",
            [
                f"rabbitmqctl add_user {user} {PASSWORD}",
                shlex.join(["rabbitmqctl", "set_permissions", "-p", vhost, user, *permissions]),
                shlex.join(["rabbitmqctl", "set_user_limits", user, limits]),
                shlex.join(["rabbitmqctl", *topology.policy_command(vhost)]),
            ],
        ),
        Step("region's hosts", "a Redis, set as docs/reference.md says; then, with that user's password in the URLs of [hub]", []),
        Step("hub and region", f"{path}, and the file that it names, on all hosts", FILE.format(name=name, title=name).splitlines(), is_file=True),
        Step("region's hosts", "its parts", [f"nearfetch bridge {name}", f"nearfetch workers {name}"]),
        Step("hub", "gateways take the file within 2 s; what is missing is named by", ["nearfetch config check", "nearfetch status"]),
    ]  # fmt: skip


def run(settings: Settings, name: str, *, as_json: bool) -> int:
    """Prints the steps; returns the exit code."""
    found = steps(settings, name)
    first = next(iter(sorted([*settings.region, name])))
    note = ""
    if first == name and name not in settings.region:
        note = f"Sources that name no region go to the first one, which will be {name}: name theirs before."
    if as_json:
        listed = [{"where": one.where, "what": one.what, "lines": one.lines, "is_file": one.is_file} for one in found]
        say_json({"region": name, "steps": listed, "note": note})
        return 0
    for number, one in enumerate(found, 1):
        say(f"{number}. {one.where}: {one.what}")
        for line in one.lines:
            say(f"   {'  ' if one.is_file else ''}{line}")
    if note:
        say(note)
    return 0
