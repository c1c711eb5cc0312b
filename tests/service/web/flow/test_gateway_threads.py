"""A gateway's threads survive what can be survived, with a log; /readyz says what can't be done; else the process ends loudly."""

import contextlib
import json
import os
import resource

import pytest

from tests.service.gateway import JSON, GatewayProcess, Region, Stack
from tests.waiting import until
from tests.wire import Wire, ask

PLAIN = b'{"sources": ["demo.plain"]}'


@pytest.fixture
def stack(tmp_path, rabbitmq, hub_redis):
    one = Stack(tmp_path, rabbitmq, hub_redis)
    one.region.purge()
    yield one
    one.stop()


def test_a_gateway_without_a_free_descriptor_lives_and_works_again_when_there_are_some(stack, rabbitmq):
    with GatewayProcess(stack) as gateway, Wire(gateway.port) as wire:
        assert wire.ask("GET", "/readyz").status == 200
        limits = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (8, limits[1]))
        rabbitmq.node.ctl("close_all_connections", "-p", rabbitmq.name, "test", timeout_seconds=120)
        stack.hub.client.client_kill_filter(_type="normal", skipme=True)
        stack.hub.client.client_kill_filter(_type="pubsub", skipme=True)
        until(lambda: "Too many open files" in gateway.said(), "a thread to need a descriptor")
        until(lambda: wire.ask("GET", "/readyz").status == 503, "/readyz to say that the servers are away")
        assert wire.ask("POST", "/v1/requests", JSON, PLAIN).status == 503
        with Wire(gateway.port) as other:  # the kernel takes it; the gateway can't
            other.send("GET", "/healthz")
            until(lambda: gateway.said().count("Too many open files") > 3, "several threads to have found none")
            resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, limits)
            assert other.reply().status == 200
        # The connection that was idle was closed to make room.
        until(lambda: ask(gateway.port, "GET", "/readyz").status == 200, "the gateway to be ready again", 60)
        posted = until(
            lambda: (reply := ask(gateway.port, "POST", "/v1/requests", JSON, PLAIN)).status == 202 and reply, "a 202"
        )
        request = json.loads(posted.body)["id"]
        stack.gateway.settler.stop()  # so that it is the other one that settles
        with contextlib.closing(Region(stack.amqp, stack.hub.url)) as region:
            region.finish(region.take(json.loads(posted.body)["tasks"][0]["region"]))
        assert ask(gateway.port, "GET", f"/v1/requests/{request}?wait=60").json()["status"] == "succeeded"
        assert gateway.process.poll() is None
        assert gateway.said().count("\n") < 5_000  # nobody writes the same thing as fast as he can


@pytest.mark.usefixtures("in_time")
@pytest.mark.parametrize("denied", ["-hmget", "-zrem", "-evalsha", "-zadd"])
def test_a_gateway_that_may_not_accept_says_so_until_it_may(stack, denied):
    client = stack.hub.client
    until(lambda: stack.post(PLAIN).status == 202, "an accept")
    client.execute_command("ACL", "SETUSER", "default", denied)
    try:
        until(lambda: stack.post(PLAIN).status == 503, "a refusal")
        for _ in range(50):  # it stays so, in every answer
            reply = ask(stack.port, "GET", "/readyz")
            assert reply.status == 503
            assert "does not permit" in reply.json()["detail"]
            assert stack.post(PLAIN).status == 503
        assert stack.gateway.acceptor.cleaner.kept < 50
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+@all")
    until(lambda: ask(stack.port, "GET", "/readyz").status == 200, "the gateway to be ready again")
    until(lambda: stack.gateway.acceptor.cleaner.kept == 0, "what was refused to be taken back")
    until(lambda: stack.post(PLAIN).status == 202, "an accept")


def test_a_gateway_that_may_not_accept_from_its_start_is_never_ready(stack):
    stack.hub.client.execute_command("ACL", "SETUSER", "other", "on", ">x", "~*", "&*", "+@all", "-hmget")
    url = stack.hub.url.replace("redis://", "redis://other:x@")
    gateway = GatewayProcess(stack, NEARFETCH__HUB__REDIS=url)
    try:
        until(lambda: "redis denies an accept" in gateway.said(), "the gateway to find out")
        until(lambda: "broker reached" in gateway.said(), "the broker to be reached")
        reply = ask(gateway.port, "GET", "/readyz")
        assert reply.status == 503
        assert "does not permit" in reply.json()["detail"]
    finally:
        gateway.__exit__()


@pytest.mark.parametrize(
    "part",
    [
        "flow.accept.Acceptor.run",
        "flow.clean.Cleaner._turn",
        "api.wait.Waiters.run",
        "flow.settle.Settler._turn",
        "flow.publish.Publisher._turn",
    ],
)
def test_a_thread_that_can_do_no_more_ends_the_process_and_says_which(stack, part):
    room, module, name, method = part.split(".")
    patch = f"from web.{room} import {module}\ndef fail(self): raise RuntimeError('broken')\n{module}.{name}.{method} = fail"
    gateway = GatewayProcess(stack, patch=patch)
    try:
        assert gateway.process.wait(60) == os.EX_SOFTWARE
    finally:
        gateway.__exit__()
    (line,) = [json.loads(line) for line in gateway.said().splitlines() if "a thread failed" in line]
    assert line["thread"]
    assert "broken" in line["exception"]
