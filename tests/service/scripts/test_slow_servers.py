"""Servers that answer, but late: what is only slow is waited for, what is too slow is a 503 within a second, and heals."""

import sys
import time
from dataclasses import dataclass

import pytest

from scripts.stack.ports import free_port
from scripts.stack.probes import listens
from scripts.stack.services import Running, Service
from scripts.stack.wan_links import Control, Rule, Way
from tests.service.gateway import LIST, Stack
from tests.waiting import until
from tests.wire import ask

SOON = 15.0  # seconds that a test allows for what takes one, on a machine that has much else to do
SLOW_MS, TOO_SLOW_MS = 150.0, 1200.0  # of each answer; a Redis has 500 ms, an accept 900 ms in all


@dataclass
class Behind:
    """A server as it is seen through a link."""

    url: str


class SlowStack:
    """A gateway whose hub and broker lie behind links of their own; the region's way is straight."""

    def __init__(self, tmp_path, rabbitmq, hub) -> None:
        self.ports = {"hub": free_port(), "rabbitmq": free_port()}
        control = free_port()
        links = [f"hub={self.ports['hub']}:{hub.port}", f"rabbitmq={self.ports['rabbitmq']}:{rabbitmq.port}"]
        words = [sys.executable, "-m", "scripts.stack.wan", "--control", str(control), *links]
        self.proxy = Running(Service("proxy", words, tmp_path / "proxy.log", listens(control))).start()
        self.control = Control(control)
        broker = Behind(rabbitmq.url.replace(f":{rabbitmq.port}/", f":{self.ports['rabbitmq']}/"))
        redis = Behind(hub.url.replace(f":{hub.port}/", f":{self.ports['hub']}/"))
        self.stack = Stack(tmp_path, broker, redis, is_patient=False)

    def slow(self, link: str, delay_ms: float) -> None:
        self.control.rule(link, Rule(back=Way(delay_ms=delay_ms)))

    def post(self) -> tuple[int, dict]:
        """The answer, which comes within a second."""
        started = time.monotonic()
        answer = self.stack.post({"sources": [LIST]})
        assert time.monotonic() - started < SOON
        return answer.status, answer.json()

    def not_ready(self) -> str:
        """Why it is not ready, empty when it is."""
        answer = ask(self.stack.port, "GET", "/readyz")
        return answer.json()["detail"] if answer.status == 503 else ""

    def status(self, request: str) -> int:
        """The status of a request's answer. What was slow may be so for a moment more."""
        return until(
            lambda: (found := ask(self.stack.port, "GET", f"/v1/requests/{request}").status) != 503 and found, request
        )

    def stop(self) -> None:
        for link in self.ports:
            self.control.heal(link)
        self.stack.stop()
        self.control.close()
        self.proxy.stop()


@pytest.fixture
def slow_stack(tmp_path, rabbitmq, hub_redis):
    one = SlowStack(tmp_path, rabbitmq, hub_redis)
    yield one
    one.stop()


@pytest.mark.parametrize("link", ["hub", "rabbitmq"])
def test_a_slow_server_is_waited_for(slow_stack, link):
    region = slow_stack.stack.region
    slow_stack.slow(link, SLOW_MS)
    _, accepted = until(lambda: (one := slow_stack.post())[0] == 202 and one, "a post to be accepted")
    until(lambda: slow_stack.not_ready() == "", "the gateway to be ready")
    region.finish(until(lambda: (one := region.take("fra")).request == accepted["id"] and one, "its task"))
    path = f"/v1/requests/{accepted['id']}?wait=60"
    done = until(lambda: (found := ask(slow_stack.stack.port, "GET", path)).status == 200 and found.json(), "its end")
    assert done["status"] == "succeeded"
    if link == "hub":
        until(
            lambda: "hub-redis-slow" in ask(slow_stack.stack.port, "GET", "/readyz").json()["faults"], "it to be told"
        )


@pytest.mark.parametrize(
    ("link", "said"), [("hub", "the hub's Redis does not answer"), ("rabbitmq", "the broker does not confirm")]
)
def test_a_server_that_is_too_slow_is_a_503_that_names_it_and_heals(slow_stack, link, said):
    refused = []

    def is_named() -> bool:
        status, problem = slow_stack.post()
        if status == 503:  # the first may still be a 202, of an answer that was on its way
            refused.append(problem.get("request"))
        return said in slow_stack.not_ready()

    def is_refused() -> list[str]:
        """Once it is named a post is refused before it is a request: then all of it is done again."""
        slow_stack.slow(link, TOO_SLOW_MS)
        until(is_named, "it to be named")
        assert ask(slow_stack.stack.port, "GET", "/healthz").status == 200
        slow_stack.control.heal(link)
        until(lambda: slow_stack.not_ready() == "", "the gateway to be ready", 60)
        return [request for request in refused if request]

    named = until(is_refused, "a refusal that names its request")
    _, accepted = until(lambda: (one := slow_stack.post())[0] == 202 and one, "a post to be accepted")
    assert {slow_stack.status(request) for request in named} == {404}
    assert slow_stack.status(accepted["id"]) == 200
