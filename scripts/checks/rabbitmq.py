"""Checks of RabbitMQ: that it lets us in, and by what it shows of itself, its users' rights, policy, alarms, disk and memory.

AMQP shows none of that. RabbitMQ's management plugin does (``hub.management_url``), and so does the node of a ``scripts/up`` on this
machine, which evaluates an expression. ``Inside`` is what either shows.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import pika.exceptions
from msgspec import Struct

from regions import connect, names, topology
from regions.settings import Settings
from scripts.checks.finding import Finding
from scripts.checks.servers import policy_command
from scripts.stack import policy
from scripts.stack.probes import broker
from scripts.stack.services import Failed, RabbitMQ
from scripts.terminal import size

NODE_SECONDS: Final = 45.0
NO_REQUESTS: Final = "every new request is answered 503 within a second; polls of accepted ones work"
NO_QUEUE: Final = 404  # AMQP's reply code
DISK_BETTER: Final = 1_000_000_000
MEMORY: Final = 0.85  # of its limit; at the limit it takes no more messages

# What the node says of itself, as JSON. Erlang's names of users, rights and policies are binaries already.
_EVAL: Final = """
    Policies = [{element(4, amqqueue:get_name(Q)), case rabbit_policy:effective_definition(Q) of undefined -> #{}; D -> maps:from_list(D) end}
        || Q <- rabbit_amqqueue:list(VHOST)],
    {ok, binary_to_list(rabbit_json:encode(#{
        permissions => [maps:from_list(P) || P <- rabbit_auth_backend_internal:list_vhost_permissions(VHOST)],
        policies => maps:from_list(Policies),
        alarms => [iolist_to_binary(io_lib:format("~p", [A])) || A <- rabbit_alarm:get_alarms()],
        disk_free => rabbit_disk_monitor:get_disk_free(), disk_limit => rabbit_disk_monitor:get_disk_free_limit(),
        memory => vm_memory_monitor:get_process_memory(), memory_limit => vm_memory_monitor:get_memory_limit()}))}.
"""
_EVALUATED: Final = re.compile(r'\{ok, \{ok, "(.*)"\}\}', re.DOTALL)  # erl_call shows a text as it is


class Unseen(RuntimeError):  # noqa: N818
    """The inside of RabbitMQ can't be seen; the message says why."""


class Inside(Struct, frozen=True):
    """What a node shows of itself. ``rights``: by user, its patterns; ``policies``: the effective definition by queue. Bytes."""

    rights: Mapping[str, Mapping[str, str]]
    policies: Mapping[str, Mapping[str, Any]]
    alarms: list[str]
    disk_free: int
    disk_limit: int
    memory: int
    memory_limit: int


def seen(settings: Settings) -> Iterator[Finding]:
    """Whether it lets our user in, and whether the queues of our regions are there."""
    where = connect.without_password(settings.hub.amqp)
    common = {"what": "RabbitMQ", "where": where}
    if fault := broker(settings.hub.amqp)():
        is_old = "or later, found" in fault
        yield Finding(
            check="version" if is_old else "connection",
            severity="wrong",
            expected="an answer",
            found=fault,
            cost=NO_REQUESTS,
            mend="upgrade it" if is_old else "start it again, with its files; or correct hub.amqp",
            **common,
        )
        return
    yield Finding(check="connection", severity="fine", note="lets us in", **common)
    lacking = []
    try:
        connection = connect.open_broker(connect.amqp_parameters(settings.hub.amqp, name="check"))
        try:
            for queue, _, _ in topology.queues(settings.region):
                try:
                    connection.channel().queue_declare(queue, passive=True)
                except pika.exceptions.ChannelClosedByBroker as error:
                    lacking += [queue] if error.reply_code == NO_QUEUE else []
        finally:
            connection.close()
    except connect.BROKER_AWAY as error:
        yield Finding(
            check="connection", severity="unseen", note=f"its queues: {error or type(error).__name__}", **common
        )
    if lacking:
        yield Finding(
            check="definition",
            severity="wrong",
            expected="the queues of all regions",
            found=f"none called {', '.join(lacking)}",
            cost="requests for these regions are answered 503",
            mend="start a gateway with these regions' files: it declares them",
            **common,
        )


def inside_of(settings: Settings, own: RabbitMQ | None) -> Callable[[], Inside]:
    """How to look inside: by the management plugin, else by the node of a stack on this machine."""
    if settings.hub.management_url:
        return lambda: _by_management(settings)
    if own is not None:
        return lambda: _by_node(own, policy.virtual_host(settings.hub.amqp))

    def unseen() -> Inside:
        raise Unseen("set hub.management_url to have rights, policy, alarms, disk and memory looked at")

    return unseen


def inside_seen(settings: Settings, look: Callable[[], Inside]) -> Iterator[Finding]:
    """What is wrong inside."""
    common = {"what": "RabbitMQ", "where": connect.without_password(settings.hub.management_url or settings.hub.amqp)}
    try:
        found = look()
    except policy.Unreadable as error:
        yield Finding(
            check="connection",
            severity="wrong",
            expected="an answer of its management plugin",
            found=str(error),
            cost="its users' rights, policy, alarms and disk are not looked at",
            mend="rabbitmq-plugins enable rabbitmq_management; or correct hub.management_url",
            **common,
        )
        return
    except (Unseen, Failed) as error:
        yield Finding(check="policy", severity="unseen", note=str(error), **common)
        return
    yield from _rights(settings, found, common)
    yield from _policies(settings, found, common)
    for alarm in found.alarms:
        yield Finding(
            check="limit",
            severity="wrong",
            expected="no alarm",
            found=alarm,
            cost=NO_REQUESTS,
            mend="free memory or disk of its host: rabbitmq-diagnostics alarms",
            **common,
        )
    if found.memory > MEMORY * found.memory_limit:
        yield Finding(
            check="limit",
            severity="better",
            expected=f"less than {MEMORY:.0%} of its memory limit in use",
            found=f"{size(found.memory)} of {size(found.memory_limit)}",
            cost="at the limit every new request is answered 503",
            mend="raise vm_memory_high_watermark, or start more workers",
            **common,
        )
    least = max(DISK_BETTER, 2 * found.disk_limit)
    if found.disk_free <= found.disk_limit:
        yield Finding(
            check="disk",
            severity="wrong",
            expected=f"more than {size(found.disk_limit)} free",
            found=size(found.disk_free),
            cost=NO_REQUESTS,
            mend="free the disk of its host",
            **common,
        )
    elif found.disk_free < least:
        yield Finding(
            check="disk",
            severity="better",
            expected=f"{size(least)} free",
            found=size(found.disk_free),
            cost=f"below {size(found.disk_limit)} every new request is answered 503",
            mend="free the disk of its host",
            **common,
        )
    else:
        yield Finding(check="disk", severity="fine", note=f"{size(found.disk_free)} free", **common)


def _rights(settings: Settings, found: Inside, common: dict[str, str]) -> Iterator[Finding]:
    """The rights of each region's user. A user that does not exist is named, since a region may use another one."""
    vhost = policy.virtual_host(settings.hub.amqp)
    for region in settings.region:
        user, wanted = names.hub_user(region), topology.region_rights(region)
        mend = shlex.join(["rabbitmqctl", "set_permissions", "-p", vhost, user, *wanted.values()])
        has = found.rights.get(user)
        if has is None:
            yield Finding(
                check="permission",
                severity="wrong",
                expected=f"a user {user} with rights on {vhost}",
                found="none",
                cost="the region's bridges are refused; its tasks expire",
                mend=f"rabbitmqctl add_user {user} PASSWORD; {mend}",
                **common,
            )
        elif (shown := {right: has.get(right, "") for right in wanted}) != wanted:
            differs = ", ".join(
                f"{right} {shown[right] or 'nothing'}" for right in wanted if shown[right] != wanted[right]
            )
            expected = ", ".join(f"{right} {wanted[right]}" for right in wanted if shown[right] != wanted[right])
            cost = (
                "the region's bridges are refused; its tasks expire"
                if shown["read"] != wanted["read"]
                else "a region can do at RabbitMQ what it need not"
            )
            yield Finding(
                check="permission",
                severity="wrong",
                expected=f"{user}: {expected}",
                found=differs,
                cost=cost,
                mend=mend,
                **common,
            )
        else:
            yield Finding(
                check="permission", severity="fine", note=f"{user} may read its queues, and nothing else", **common
            )


def _policies(settings: Settings, found: Inside, common: dict[str, str]) -> Iterator[Finding]:
    mend, is_fine = policy_command(settings), True
    for queue, _, _ in topology.queues(settings.region):
        if queue not in found.policies:
            continue  # a missing queue is reported elsewhere
        falls = policy.wrong_in(queue, found.policies[queue], mend)
        is_fine = is_fine and not falls
        for fall in falls:
            yield Finding(
                check="policy",
                severity="wrong",
                expected=f"{fall.setting} {fall.expected}",
                found=fall.found,
                cost="messages may be lost, or fill its memory",
                mend=mend,
                **common,
            )
    if is_fine:
        yield Finding(check="policy", severity="fine", note="the policy of all queues is as it must be", **common)


def _by_management(settings: Settings) -> Inside:
    url, vhost = settings.hub.management_url, quote(policy.virtual_host(settings.hub.amqp), safe="")
    policies = {}
    for queue, _, _ in topology.queues(settings.region):
        try:
            policies[queue] = policy.effective(url, vhost, queue)
        except policy.NoQueue:
            continue
    permissions = policy.get(url, f"/api/vhosts/{vhost}/permissions")
    nodes = [node for node in policy.get(url, "/api/nodes") if node.get("running")]
    return Inside(
        rights={str(one["user"]): one for one in permissions},
        policies=policies,
        alarms=[f"{kind.removesuffix('_alarm')} alarm at {node['name']}" for node in nodes for kind in ("mem_alarm", "disk_free_alarm") if node.get(kind)],
        disk_free=min((int(node["disk_free"]) for node in nodes), default=0),
        disk_limit=max((int(node["disk_free_limit"]) for node in nodes), default=0),
        memory=max((int(node["mem_used"]) for node in nodes), default=0),
        memory_limit=min((int(node["mem_limit"]) for node in nodes), default=0),
    )  # fmt: skip


def _by_node(own: RabbitMQ, vhost: str) -> Inside:
    said = own.evaluate(" ".join(_EVAL.replace("VHOST", f"<<{json.dumps(vhost)}>>").split()))
    found = _EVALUATED.fullmatch(said)
    if found is None:
        raise Unseen(f"its node says: {said[-300:]}")
    shown = json.loads(found[1])
    return Inside(
        rights={one["user"]: one for one in shown["permissions"]},
        policies=shown["policies"],
        alarms=shown["alarms"],
        disk_free=int(shown["disk_free"]),
        disk_limit=int(shown["disk_limit"]),
        memory=int(shown["memory"]),
        memory_limit=int(shown["memory_limit"]),
    )
