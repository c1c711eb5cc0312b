"""A region whose credentials are stolen: what it does with them at the hub's Redis and at the broker, again and again."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Self

import pika
import redis
from backports import zstd

from jobs import contract, result_frame
from regions import connect, names
from scripts.chaos import hostile
from scripts.chaos.stack import ChaosStack, source
from scripts.stack import configuration

ROUND_SECONDS = 0.25  # an attack of each kind, then a pause: what is seen is what it does, not that the machine is busy
JUNK_BYTES = 1_000_000
BOMB_BYTES = 50_000_000
DEEP = "[" * 5_000 + "]" * 5_000


class Attack:
    """The attacker of one region, in a thread. ``allowed``: what it could do and must not; ``faults``: what broke in it."""

    def __init__(self, stack: ChaosStack, region: str) -> None:
        self._stack, self._region = stack, region
        self._others = [one for one in stack.regions if one != region]
        url = configuration.hub_url(stack.data, stack.ports, region)
        self._hub = connect.open_redis(url, name="attacker")
        self._amqp = connect.amqp_parameters(stack.broker.region_url(region), name="attacker")[0]
        self._bomb = zstd.compress(b"[" + b" " * BOMB_BYTES + b"]")
        self._number = 0
        self.allowed: set[str] = set()
        self.faults: list[Exception] = []
        self.rounds = self.stolen = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._hub.close()
        if self.faults:
            raise self.faults[0]

    def _run(self) -> None:
        while not self._stopping.is_set():
            for attack in (self._forbidden, self._entries, self._spam, self._junk, self._answers, self._broker):
                try:
                    attack()
                except (redis.exceptions.RedisError, *connect.BROKER_AWAY):
                    continue  # kept out, or full
                except Exception as error:  # noqa: BLE001 - the test ends with it
                    self.faults.append(error)
                    return
            self.rounds += 1
            self._stopping.wait(ROUND_SECONDS)

    def _try(self, *command: object) -> None:
        try:
            self._hub.execute_command(*command)
        except (redis.exceptions.NoPermissionError, *connect.AWAY):
            return
        except redis.exceptions.ResponseError as error:
            self.allowed.add(f"{command[:3]}: {error}")
            return
        self.allowed.add(str(command[:3]))

    def _forbidden(self) -> None:
        """Commands, and keys, that are none of its."""
        stream, task = names.out_stream(self._region), "0" * 26
        for command in (
            ("SET", stream, "x"), ("XADD", names.result(self._region, task), "*", "x", "y"), ("DEL", stream),
            ("SET", names.result(self._others[0], task), "x"), ("SET", names.result(names.HUB, task), "x"),
            ("SET", names.result(names.settled(self._region), task), "x"), ("SET", names.ledger(task), "x"),
            ("XADD", names.out_stream(self._others[0]), "*", "x", "y"), ("XTRIM", stream, "MAXLEN", 0),
            ("CLIENT", "PAUSE", 5_000, "ALL"), ("CLIENT", "KILL", "TYPE", "normal"), ("CLIENT", "KILL", "TYPE", "pubsub"),
            ("CLIENT", "NO-EVICT", "ON"), ("PUBLISH", names.WAKE, "x"), ("EVAL", "while true do end", 0), ("KEYS", "*"),
            ("CONFIG", "SET", "maxmemory", 1), ("FLUSHALL",), ("SHUTDOWN",), ("ACL", "LIST"),
        ):  # fmt: skip
            self._try(*command)

    def _entries(self) -> None:
        """What nobody should believe, of every kind, and ends of tasks that are others'."""
        pipe = self._hub.pipeline(transaction=False)
        for entry in self._bad():
            pipe.xadd(names.out_stream(self._region), entry)
        pipe.execute(raise_on_error=False)

    def _bad(self) -> Iterator[dict]:
        others = hostile.open_tasks(self._stack.redis("hub"), self._others)
        yield from hostile.entries(others)
        status = {"k": "status", "v": 1, "part": "bridge", "name": "harm"}
        yield {"k": "result", "v": 1, "q": "x", "t": "y", "s": "succeeded", "f": 1, "b": 10, "h": DEEP}
        for kind in ("claims", "status", "sources"):
            yield {**status, "k": kind, "d": DEEP}
        yield {**status, "d": f'{{"at_ms": 5, "x": {DEEP}}}'}
        yield {**status, "d": json.dumps({"at_ms": 2**62, "ready": -1})}
        self._number += 1
        now = connect.redis_now_ms(self._hub)
        yield {**status, "name": f"harm-{self._number}", "d": json.dumps({"at_ms": now, "state": "consuming"})}
        broken = {source(region): {"definition": "x", "fault": "broken", "trouble": "away"} for region in self._others}
        yield {"k": "sources", "v": 1, "d": json.dumps(broken)}
        yield {"k": "sources", "v": 1, "d": json.dumps({source(region): 5 for region in self._others})}

    def _spam(self) -> None:
        """What is valid, and large."""
        text = json.dumps({f"s.{number}": {"definition": "x" * 50, "fault": None} for number in range(2_000)})
        self._hub.xadd(names.out_stream(self._region), {"k": "sources", "v": 1, "d": text})

    def _junk(self) -> None:
        """Results that nobody asked for, without an end."""
        self._number += 1
        self._hub.set(names.result(self._region, f"junk-{self._number}"), b"x" * JUNK_BYTES)

    def _answers(self) -> None:
        """Takes its own tasks before its bridge does, and answers them with what breaks a reader."""
        frames = (self._frame(b"z", self._bomb), self._frame(b"0", b"[]}]}garbage"), b"x", b"")
        with pika.BlockingConnection(self._amqp) as connection:
            channel = connection.channel()
            for frame in frames:
                _, _, body = channel.basic_get(names.work_queue(self._region), auto_ack=True)
                if body is None:
                    return
                task = contract.decode_task(body)
                self.stolen += 1
                pipe = self._hub.pipeline(transaction=True)
                if frame:
                    pipe.set(names.result(self._region, task.task), frame.replace(b"TASK", task.task.encode()), nx=True)
                entry = {"k": "result", "v": 1, "q": task.request, "t": task.task, "s": "succeeded", "b": 700}
                pipe.xadd(names.out_stream(self._region), {**entry, "f": connect.redis_now_ms(self._hub)})
                pipe.execute()

    def _frame(self, mark: bytes, records: bytes) -> bytes:
        told = contract.Result(
            task="TASK", source=source(self._region), region=self._region, status="succeeded", count=1
        )
        return (
            mark
            + json.dumps(json.loads(result_frame.encode(told, b"[]").partition(b"\n")[0][1:])).encode()
            + b"\n"
            + records
        )

    def _broker(self) -> None:
        """Other regions' queues, and tasks of its own making."""
        attacks: dict[str, Callable[[pika.adapters.blocking_connection.BlockingChannel], object]] = {
            "get": lambda channel: channel.basic_get(names.work_queue(self._others[0])),
            "purge": lambda channel: channel.queue_purge(names.fast_queue(self._others[0])),
            "delete": lambda channel: channel.queue_delete(names.work_queue(self._others[0])),
            "publish": lambda channel: _published(channel, names.TASKS_EXCHANGE, self._others[0]),
            "publish to a queue": lambda channel: _published(channel, "", names.fast_queue(self._others[0])),
            "unbind": lambda channel: channel.queue_unbind(names.work_queue(self._others[0]), names.TASKS_EXCHANGE),
        }
        with pika.BlockingConnection(self._amqp) as connection:
            for name, attack in attacks.items():
                try:
                    attack(connection.channel())
                except pika.exceptions.ChannelClosedByBroker as error:
                    if error.reply_code == 403:
                        continue
                self.allowed.add(f"the broker: {name}")


def _published(channel: pika.adapters.blocking_connection.BlockingChannel, exchange: str, key: str) -> None:
    channel.confirm_delivery()
    channel.basic_publish(exchange, key, b"forged")
