"""A whole gateway on a real broker and a real Redis; the test plays the region."""

import contextlib
import heapq
import json
import os
from typing import Self

import pika
import pytest

from jobs import contract, result_frame
from regions import connect, names, topology
from regions.settings import ROOT
from scripts.stack.services import free_port
from tests import sources
from tests.forked import GATEWAY, Forked
from tests.service import hub_parts
from tests.service.conftest import RedisInstance
from tests.waiting import until
from tests.wire import ask
from web.flow.accept import Acceptor
from web.gateway import Gateway

JSON = {"Content-Type": "application/json"}
LIST = {"source": "demo.list", "params": {"category": "poetry"}}


class Region:
    """The other end: takes tasks off the queues and sends results home, as a bridge and its workers would."""

    def __init__(self, amqp: str, redis_url: str) -> None:
        parameters = connect.amqp_parameters(amqp, name="test-region")[0]
        parameters.heartbeat = 0  # nobody answers one while the test waits for something else
        self.connection = pika.BlockingConnection(parameters)
        self.channel = self.connection.channel()
        self.redis = connect.open_redis(redis_url, name="test-region", block_seconds=30.0)

    def take(self, region: str, *, fast: bool = False) -> contract.Task:
        queue = names.fast_queue(region) if fast else names.work_queue(region)

        def get():
            method, _, body = self.channel.basic_get(queue, auto_ack=True)
            return body if method is not None else None

        return contract.decode_task(until(get, f"a task in {queue}"))

    def purge(self) -> None:
        """Forgets every message of every region."""
        for queue, _, _ in topology.queues(["fra", "nyc", "sin"]):
            self.channel.queue_purge(queue)

    def is_empty(self, region: str) -> bool:
        queues = (names.fast_queue(region), names.work_queue(region))
        return all(self.channel.queue_declare(queue, passive=True).method.message_count == 0 for queue in queues)

    def finish(
        self,
        task: contract.Task,
        records: bytes = b'[{"name":"a"}]',
        error: contract.Error | None = None,
        finished_ms: int | None = None,
        run: contract.Run | None = None,
        **told,
    ):
        """``told``: what else the result says. It finished now, where nothing else is said; ``run`` as in its trail."""
        status = "failed" if error else "succeeded"
        told = {"count": 1, **told}
        result = contract.Result(
            task=task.task, source=task.source, region=task.region, status=status, error=error, **told
        )
        frame = result_frame.encode(result, b"[]" if error else records)
        pipeline = self.redis.pipeline(transaction=True)
        pipeline.set(names.result(task.region, task.task), frame, nx=True, pxat=task.expires_ms)
        fields = {
            "k": "result", "v": 1, "q": task.request, "t": task.task, "s": status,
            "f": finished_ms or connect.redis_now_ms(self.redis), "b": len(records) + 600,
            "h": contract.encode_trail(contract.Trail(0, [], run)) if run else "",
        }  # fmt: skip
        pipeline.xadd(names.out_stream(task.region), fields)
        pipeline.execute()

    def say(self, region: str, part: str, name: str, **said) -> None:
        fields = {"k": "status", "v": 1, "part": part, "name": name, "d": json.dumps(said)}
        self.redis.xadd(names.out_stream(region), fields)

    def say_sources(self, region: str, said: dict[str, dict[str, str | None]]) -> None:
        """As its workers tell which sources they have: each one's hash, and what is wrong with it."""
        self.redis.xadd(names.out_stream(region), {"k": "sources", "v": 1, "d": json.dumps(said)})

    def close(self) -> None:
        """A connection that was idle for a while answers no heartbeat, and the broker has closed it by then."""
        with contextlib.suppress(pika.exceptions.AMQPError):
            self.connection.close()
        self.redis.close()


def hurry(acceptor: Acceptor) -> None:
    """Its stop waits for no budget of a request that has its answer."""
    clock = acceptor._clock
    with clock._changed:
        clock._heap = [one for one in clock._heap if not one[2].is_ended]
        heapq.heapify(clock._heap)
        clock._changed.notify()


class Stack:
    """The gateway, its servers and a region. ``is_patient``: its servers may be slow for seconds, and are not away by that."""

    def __init__(self, folder, rabbitmq, hub: RedisInstance, *, is_patient: bool = True, **environ: str) -> None:
        self.port = free_port()
        self.environ = {
            "NEARFETCH__GATEWAY__PORT": str(self.port),
            "NEARFETCH__SOURCES__PATH": str(sources.write(folder / "sources")),
            **environ,
        }
        self.settings = hub_parts.settings(folder, redis=hub.url, amqp=rabbitmq.url, **self.environ)
        self.hub, self.folder, self.amqp = hub, folder, rabbitmq.url
        with pytest.MonkeyPatch.context() as patch:
            if is_patient:
                patch.setattr(connect, "TIMEOUT_SECONDS", 10.0)
                patch.setattr(connect, "MONGO_SECONDS", 30.0)
            self.gateway = Gateway(self.settings)
        self.gateway.start()
        try:
            until(lambda: ask(self.port, "GET", "/readyz").status == 200, "the gateway to be ready")
            self.region = Region(rabbitmq.url, hub.url)
        except BaseException:
            self.gateway.stop()  # its threads would keep the process of the tests for ever
            raise

    def stop(self) -> None:
        hurry(self.gateway.acceptor)
        self.gateway.stop()
        self.region.close()

    def post(self, document, headers: dict[str, str] | None = None):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return ask(self.port, "POST", "/v1/requests", JSON if headers is None else headers, body)


class GatewayProcess:
    """A second gateway on the servers of a ``Stack``, as a process of its own. ``patch``: code that runs before it.

    ``port``: 0 for a free one. Its servers may be slow for seconds, as those of a patient ``Stack``, and so may an accept.
    """

    CODE = "import sys; from regions import logs, settings; logs.configure('json'); from web import gateway; "
    PATIENT = "from regions import connect; connect.TIMEOUT_SECONDS = 10.0; from web.flow import accept; accept.BUDGET_SECONDS = 8.0"

    def __init__(self, stack: Stack, *, patch: str = "", port: int = 0, **environ: str) -> None:
        self.port, self.log = port or free_port(), stack.folder / f"gateway-{os.urandom(4).hex()}.log"
        found = {
            **os.environ,
            **stack.environ,
            "NEARFETCH__GATEWAY__PORT": str(self.port),
            "NEARFETCH__REGIONS__PATH": str(stack.folder / "regions"),
            "NEARFETCH__HUB__REDIS": stack.hub.url,
            "NEARFETCH__HUB__AMQP": stack.amqp,
            **environ,
        }
        code = f"{self.CODE}{self.PATIENT}\n{patch}\nsys.exit(gateway.run(settings.load()))"
        with self.log.open("ab") as log:
            self.process = Forked(
                ["-c", code], imported=GATEWAY, env=found, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        self.pid = self.process.pid

    def __enter__(self) -> Self:
        try:
            until(lambda: self.process.poll() is not None or '"serving"' in self.said(), "the gateway to serve")
            assert self.process.poll() is None, self.said()
            until(lambda: ask(self.port, "GET", "/readyz").status == 200, "the gateway's process to be ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        return self.log.read_text()
