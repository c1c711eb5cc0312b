"""Publishing on a real RabbitMQ: who publishes sends, and what the socket does not take is not mixed up."""

import random
import socket
import ssl
import threading
from collections.abc import Iterator

import pika
import pytest

from regions import connect, names, topology
from tests.service.hub_parts import settings
from tests.waiting import until
from web.flow.confirms import Batch, Message
from web.flow.publish import Publisher

QUEUE, KEY = names.work_queue("fra"), names.routing_key("fra", fast=False)


@pytest.fixture
def broker(rabbitmq) -> Iterator[pika.BlockingConnection]:
    """A connection beside the publisher's; the queue is empty."""
    connection = pika.BlockingConnection(pika.URLParameters(f"{rabbitmq.url}?heartbeat=0"))
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=True, arguments=topology.QUORUM)
    channel.queue_purge(QUEUE)
    yield connection
    connection.close()


@pytest.fixture
def publisher(tmp_path, rabbitmq) -> Iterator[Publisher]:
    made = Publisher(settings(tmp_path, amqp=rabbitmq.url))
    made.start()
    until(lambda: made.unavailable is None, "the broker")
    yield made
    made.stop()


def message(id_: str, body: bytes = b"{}") -> Message:
    return Message(KEY, body, id_, "R", "task")


def test_a_message_leaves_although_the_publishers_thread_does_not_run(broker, publisher):
    ended: list[str | None] = []
    is_held, goes_on = threading.Event(), threading.Event()
    publisher._connection.ioloop.add_callback_threadsafe(lambda: (is_held.set(), goes_on.wait(30)))
    assert is_held.wait(10)
    publisher.publish(Batch([message("M")], ended.append))
    got = until(lambda: (one := broker.channel().basic_get(QUEUE, auto_ack=True))[0] and one, "the message")
    assert (got[1].message_id, ended) == ("M", [])
    goes_on.set()
    until(lambda: ended == [None], "its confirm")


def test_what_a_full_socket_does_not_take_is_sent_in_order_and_whole(broker, publisher):
    """Eight threads send more than a socket holds; each of its sends takes only a part."""
    publisher._connection._transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    dice = random.Random(7)
    bodies = {
        f"{thread}.{number}": dice.randbytes(dice.choice((20, 9_000, 70_000)))
        for thread in range(8)
        for number in range(30)
    }
    ended: list[str | None] = []

    def publish(thread: int) -> None:
        for number in range(0, 30, 3):
            ids = [f"{thread}.{one}" for one in range(number, number + 3)]
            publisher.publish(Batch([message(id_, bodies[id_]) for id_ in ids], ended.append))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(ended) == 80, "all confirms", 60)
    assert set(ended) == {None}
    channel, found = broker.channel(), {}
    while (got := channel.basic_get(QUEUE, auto_ack=True))[0] is not None:
        found[got[1].message_id] = got[2]
    assert found == bodies
    for thread in range(8):
        assert [id_ for id_ in found if id_.startswith(f"{thread}.")] == [f"{thread}.{number}" for number in range(30)]


def test_over_tls_and_on_a_closed_socket_the_calling_thread_sends_nothing():
    ours, theirs = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    wrapped = context.wrap_socket(ours, do_handshake_on_connect=False)
    assert connect._sent(wrapped, b"data") == 0
    wrapped.close()
    theirs.close()
    assert connect._sent(wrapped, b"data") == 0
    left, right = socket.socketpair()
    right.close()
    left.close()
    assert connect._sent(left, b"data") == 4
