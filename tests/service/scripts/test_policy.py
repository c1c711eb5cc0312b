"""The queues' policy, read from a real RabbitMQ with its management plugin."""

import json
import shlex

import pytest
from click.testing import CliRunner

from regions import topology
from regions.settings import Hub, Region, Settings
from scripts.checks import rabbitmq, servers
from scripts.cli import main
from scripts.stack import policy
from scripts.stack.ports import free_port
from scripts.stack.services import RabbitMQ, Running
from tests import broker
from tests.service.bridging import Broker
from tests.waiting import until

TICK_MS = 250  # between two reports of a queue of itself; by default 5,000, as the plugin's looks, for which a test would wait
CONFIG = """
management.tcp.ip = 127.0.0.1
management.tcp.port = {port}
collect_statistics_interval = {tick}
management.sample_retention_policies.global.minute = 1
management.sample_retention_policies.basic.minute = 1
management.sample_retention_policies.detailed.minute = 1
"""


@pytest.fixture(scope="module")
def managed(tmp_path_factory):
    """A node with the plugin; its address is ``management_url``."""
    node = RabbitMQ(tmp_path_factory.mktemp("managed"), free_port())
    port = free_port()
    service = node.service()
    (node.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
    (node.folder / "plugins.conf").write_text(CONFIG.format(port=port, tick=TICK_MS))
    running = Running(service).start()
    node.evaluate(f"application:set_env(rabbit, quorum_tick_interval, {TICK_MS}).")
    node.management_url = f"http://{node.user}:{node.password}@127.0.0.1:{port}"
    yield node
    running.stop()


def settings(node, **changes) -> Settings:
    hub = Hub(**{"amqp": node.url, "management_url": node.management_url, **changes})
    return Settings(hub=hub, region={"fra": Region(name="fra")})


def test_every_part_of_the_policy_that_a_queue_lacks_is_told(managed):
    with pytest.raises(policy.Unreadable, match="there is no queue"):
        policy.shortfalls(settings(managed), "mend")
    Broker(managed, "fra").declare()
    until(lambda: found(managed) == [], "the policy to be seen")
    other = {**topology.POLICY, "delivery-limit": 20, "max-length": 5000, "max-length-bytes": 7}
    broker.set_policy(managed, "other", "^q.fra$", other)
    until(lambda: found(managed) == ["q.fra: delivery-limit: expected -1, found 20"], "the other policy to be seen")
    for name in ("other", topology.POLICY_NAME):
        broker.clear_policy(managed, name)
    until(lambda: len(found(managed)) == 3 * len(topology.POLICY), "no policy to be seen")
    assert "q.fra.now: max-length: expected a limit, found nothing" in found(managed)
    assert "q.fra.now: max-length-bytes: expected a limit, found nothing" in found(managed)
    mend(managed)
    until(lambda: found(managed) == [], "what mends it to be seen")


def mend(node) -> None:
    assert node.ctl(*topology.policy_command(), timeout_seconds=120).returncode == 0


def found(node) -> list[str]:
    return [str(one) for one in policy.shortfalls(settings(node), "mend")]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nobody:wrong@{place}", "http://{user}@{place}/nowhere"])
def test_a_management_that_does_not_answer_rightly_is_a_fault_without_a_secret(managed, url):
    user, _, place = managed.management_url.removeprefix("http://").partition("@")
    wrong = settings(managed, management_url=url.format(user=user, place=place))
    finding = servers.policy_finding(wrong)
    assert finding.is_bad
    assert managed.password not in finding.fault + finding.where


def checked(words: str):
    """``config check``, once it says that."""
    done = CliRunner().invoke(main, ["config", "check"])
    return done if words in done.output else None


def test_config_check_says_how_the_policy_is_mended(managed, monkeypatch):
    Broker(managed, "fra").declare()
    monkeypatch.setenv("NEARFETCH__HUB__AMQP", managed.url)
    monkeypatch.setenv("NEARFETCH__HUB__MANAGEMENT_URL", managed.management_url)
    for region in ("nyc", "sin"):
        Broker(managed, region).declare()
    broker.clear_policy(managed, topology.POLICY_NAME)
    try:
        done = until(lambda: checked("q.fra: dead-letter-exchange"), "the check to see it")
    finally:
        mend(managed)
    assert done.exit_code == 1
    assert "q.fra: dead-letter-exchange: expected x.dead, found" in done.output
    assert "fix it: rabbitmqctl set_policy -p / nearfetch" in done.output
    assert managed.password not in done.output


def permit(node, *rights: str) -> None:
    words = ", ".join(f"<<{json.dumps(right)}>>" for right in rights)
    node.evaluate(f'rabbit_auth_backend_internal:set_permissions(<<"region-fra">>, <<"/">>, {words}, <<"test">>).')


def having(found, *kinds: str, told: set[tuple[str, str]]):
    """What was found, once it has findings of these kinds, and these: each part tells of itself, one after the other."""
    return found if {kind for kind, _ in found} >= set(kinds) and found.keys() >= told else {}


@pytest.mark.parametrize("way", ["management", "its node"])
def test_doctor_finds_what_is_wrong_inside_rabbitmq(managed, way):
    """Rights, policy, and a disk that is full, by either way in, and what it says of a node that is well."""
    one = settings(managed, **({} if way == "management" else {"management_url": ""}))
    Broker(managed, "fra").declare()
    look = rabbitmq.inside_of(one, None if way == "management" else managed)

    def found(severity="wrong"):
        return {
            (each.check, each.expected): each for each in rabbitmq.inside_seen(one, look) if each.severity == severity
        }

    rights = topology.region_rights("fra")
    managed.evaluate(
        'rabbit_auth_backend_internal:put_user(#{name => <<"region-fra">>, password => <<"x">>, tags => <<>>}, <<"test">>).'
    )
    managed.evaluate('rabbit_auth_backend_internal:clear_permissions(<<"region-fra">>, <<"/">>, <<"test">>).')
    broker.clear_policy(managed, topology.POLICY_NAME)
    lacking = "permission", "a user region-fra with rights on /"
    told = {("policy", f"{queue}: overflow reject-publish") for queue in ("q.fra", "q.fra.now")}
    wrong = until(lambda: having(found(), told={lacking, *told}), "what is wrong to be seen")
    mended = wrong[lacking].mend.partition("; ")[2]
    assert managed.ctl(*shlex.split(mended)[1:], timeout_seconds=120).returncode == 0
    broker.set_policy(managed, topology.POLICY_NAME, topology.POLICY_PATTERN, topology.POLICY)
    until(lambda: found() == {}, "nothing to be wrong")
    assert {check for check, _ in found("fine")} == {"permission", "policy", "disk"}
    permit(managed, ".*", "^$", rights["read"])
    managed.evaluate("rabbit_disk_monitor:set_disk_free_limit({mem_relative, 900.0}).")
    try:
        told = {("permission", "region-fra: configure ^$")}
        wrong = until(lambda: having(found(), "disk", "limit", told=told), "the full disk to be seen")
        assert {"permission", "disk", "limit"} == {check for check, _ in wrong}
    finally:
        managed.evaluate("rabbit_disk_monitor:set_disk_free_limit(50000000).")
        permit(managed, *rights.values())
    until(lambda: found() == {}, "the alarm to end")


def test_doctor_finds_queues_that_nobody_declared(managed):
    one = settings(managed)
    Broker(managed, "fra").declare()
    assert [each.severity for each in rabbitmq.seen(one)] == ["fine"]
    other = Settings(hub=one.hub, region={"fra": Region(name="fra"), "new": Region(name="new")})
    (lacking,) = [each for each in rabbitmq.seen(other) if each.severity == "wrong"]
    assert lacking.found == "none called q.new, q.new.now"
    silent = settings(managed, management_url="http://127.0.0.1:1")
    (told,) = rabbitmq.inside_seen(silent, rabbitmq.inside_of(silent, None))
    assert (told.check, told.severity) == ("connection", "wrong")
    unasked = settings(managed, management_url="")
    (told,) = rabbitmq.inside_seen(unasked, rabbitmq.inside_of(unasked, None))
    assert (told.severity, "set hub.management_url" in told.note) == ("unseen", True)
    away = settings(managed, amqp=f"amqp://x:y@127.0.0.1:{free_port()}/%2F")
    assert [each.check for each in rabbitmq.seen(away)] == ["connection"]
