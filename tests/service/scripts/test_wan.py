"""The links of scripts.stack.wan, between real sockets."""

import contextlib
import socket
import struct
import sys
import threading
import time

import pytest

from scripts.stack.ports import free_port
from scripts.stack.probes import listens
from scripts.stack.services import Running, Service
from scripts.stack.wan import parse
from scripts.stack.wan_links import Control, Rule, Way
from tests.waiting import until


class Echo:
    """A server that sends back what it gets, in capitals; ``got`` is everything that arrived."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.got = b""
        self._lock = threading.Lock()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(65536):
                with self._lock:
                    self.got += data
                connection.sendall(data.upper())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed already
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Proxied:
    """An echo behind the link "a". ``far``: its distance, as ``scripts/up --wan`` gives it."""

    def __init__(self, tmp_path, far: str = "") -> None:
        self.echo = Echo()
        self.port, control = free_port(), free_port()
        words = [
            sys.executable,
            "-m",
            "scripts.stack.wan",
            "--control",
            str(control),
            f"a={self.port}:{self.echo.port}{far}",
        ]
        self.running = Running(Service("proxy", words, tmp_path / "proxy.log", listens(control))).start()
        self.control = Control(control)
        self.clients: list[socket.socket] = []

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), 60)
        self.clients.append(client)
        return client

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.control.close()
        self.running.stop()
        self.echo.close()


@pytest.fixture
def proxied(tmp_path, request):
    made = Proxied(tmp_path, getattr(request, "param", ""))
    yield made
    made.close()


def ask(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return receive(client, len(text))


def receive(client: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count and (data := client.recv(65536)):
        found += data
    return found


def is_silent(client: socket.socket, seconds: float = 0.3) -> bool:
    client.settimeout(seconds)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(60)
    return False


def test_it_passes_everything_in_order_and_counts_it(proxied):
    client = proxied.connect()
    text = bytes(range(97, 123)) * 40_000
    threading.Thread(target=client.sendall, args=(text,), daemon=True).start()
    assert receive(client, len(text)) == text.upper()
    counts = proxied.control.counts("a")
    assert (counts.there, counts.back, counts.open) == (len(text), len(text), 1)
    client.shutdown(socket.SHUT_RDWR)
    until(lambda: proxied.control.counts("a").open == 0, "the link to be idle")


def test_a_delay_holds_each_way_and_keeps_the_order(proxied):
    client = proxied.connect()
    ask(client, b"warm")
    proxied.control.rule("a", Rule(there=Way(delay_ms=100, jitter_ms=80), back=Way(delay_ms=100)))
    started = time.monotonic()
    for word in (b"one ", b"two ", b"three"):
        client.sendall(word)
    assert receive(client, 13) == b"ONE TWO THREE"
    assert time.monotonic() - started >= 0.12


def test_a_limit_makes_it_slow(proxied):
    client = proxied.connect()
    proxied.control.rule("a", Rule(back=Way(bytes_per_second=100_000)))
    started = time.monotonic()
    assert len(ask(client, b"x" * 30_000)) == 30_000
    assert time.monotonic() - started >= 0.29


def test_all_connections_share_the_bandwidth_of_a_link(proxied):
    clients = [proxied.connect() for _ in range(3)]
    proxied.control.rule("a", Rule(there=Way(bytes_per_second=100_000)))
    started = time.monotonic()
    for client in clients:
        client.sendall(b"x" * 10_000)
    for client in clients:
        assert receive(client, 10_000) == b"X" * 10_000
    assert time.monotonic() - started >= 0.29


@pytest.mark.parametrize("proxied", ["@100:jitter=20"], indirect=True)
def test_a_new_connection_opens_in_a_round_trip_and_heals_to_its_own_distance(proxied):
    started = time.monotonic()
    client = proxied.connect()
    assert ask(client, b"first") == b"FIRST"
    assert time.monotonic() - started >= 0.16
    proxied.control.rule("a", Rule())
    proxied.control.heal("a")
    started = time.monotonic()
    assert ask(client, b"second") == b"SECOND"
    assert time.monotonic() - started >= 0.06


@pytest.mark.parametrize("proxied", ["@200"], indirect=True)
def test_much_data_takes_a_round_trip_for_each_window_of_tcp(proxied):
    client = proxied.connect()
    ask(client, b"open")
    started = time.monotonic()
    client.sendall(b"x" * 60_000)  # 14,600, twice as much, and the rest
    until(lambda: len(proxied.echo.got) == 60_004, "all of it to arrive")
    assert time.monotonic() - started >= 0.1 + 0.4


def test_lost_packets_stall_their_connection(proxied):
    client = proxied.connect()
    proxied.control.rule("a", Rule(there=Way(delay_ms=20, loss=1.0), back=Way(delay_ms=20)))
    started = time.monotonic()
    assert ask(client, b"hello") == b"HELLO"
    assert time.monotonic() - started >= 0.27  # a round trip, and one more with 200 ms for the retransmission
    assert proxied.control.counts("a").stalled == 1


@pytest.mark.parametrize(("how", "expected"), [("reset", ConnectionResetError), ("close", None)])
def test_a_cut_ends_all_connections(proxied, how, expected):
    client = proxied.connect()
    ask(client, b"hello")
    proxied.control.cut("a", how)
    with pytest.raises(expected) if expected else contextlib.nullcontext():
        assert client.recv(1) == b""
    assert ask(proxied.connect(), b"again") == b"AGAIN"


def test_a_black_hole_accepts_and_answers_nothing_and_what_was_sent_arrives_when_it_heals(proxied):
    old = proxied.connect()
    ask(old, b"hello")
    proxied.control.rule("a", Rule(there=Way(then="hold"), back=Way(then="hold")))
    new = proxied.connect()
    for client in (old, new):
        client.sendall(b"late")
    assert is_silent(old)
    assert is_silent(new)
    assert proxied.echo.got == b"hello"
    new.close()  # as a client whose time-out was over: its request arrives all the same
    proxied.control.heal("a")
    assert receive(old, 4) == b"LATE"
    until(lambda: proxied.echo.got == b"hellolatelate", "both requests")


def test_half_open_loses_one_direction_only(proxied):
    client = proxied.connect()
    ask(client, b"hello")
    proxied.control.rule("a", Rule(back=Way(then="drop")))
    client.sendall(b"arrives")
    assert is_silent(client)
    until(lambda: proxied.echo.got == b"helloarrives", "it to arrive")
    until(lambda: proxied.control.counts("a").dropped == 7, "its answer to be dropped")
    proxied.control.heal("a")
    with pytest.raises(ConnectionResetError):  # a stream with a hole is none
        client.recv(1)


def test_refusing_resets_new_connections_only(proxied):
    old = proxied.connect()
    ask(old, b"hello")
    proxied.control.rule("a", Rule(accepts=False))
    with pytest.raises(ConnectionResetError):
        proxied.connect().recv(1)
    assert ask(old, b"hello") == b"HELLO"


def test_a_swallowed_answer_belongs_to_the_request_that_was_named(proxied):
    client, other = proxied.connect(), proxied.connect()
    proxied.control.swallow("a", b"EVALSHA abc", cut_seconds=0.1)
    assert ask(client, b"PING") == b"PING"
    client.sendall(b"EVAL")
    assert receive(client, 4) == b"EVAL"
    client.sendall(b"SHA abc")  # in two pieces
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert proxied.echo.got.endswith(b"EVALSHA abc")
    assert ask(other, b"EVALSHA abc") == b"EVALSHA ABC"
    assert proxied.control.counts("a").swallowed == 1


def test_a_target_that_is_away_is_a_reset(proxied):
    proxied.echo.close()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        ask(proxied.connect(), b"hello")


def test_a_client_that_resets_resets_the_target_too(proxied):
    client = proxied.connect()
    ask(client, b"hello")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    until(lambda: proxied.control.counts("a").open == 0, "the link to be idle")


def test_what_is_no_call_and_no_link_is_refused_and_changes_nothing(proxied):
    with pytest.raises(ValueError, match="KeyError: 'b'"):
        proxied.control.counts("b")
    with pytest.raises(ValueError, match="Invalid enum value"):
        proxied.control.rule("a", Rule(there=Way(then="burn")))
    with pytest.raises(ValueError, match="expected NAME=PORT:TARGET, found 'a=1'"):
        parse(("a=1",))
    with pytest.raises(ValueError, match=r"expected MS\[:jitter=MS\].*, found 'far'"):
        parse(("a=1:2@far",))
    assert ask(proxied.connect(), b"hello") == b"HELLO"


def test_a_cut_in_silence_tells_neither_end_and_new_connections_pass(proxied):
    """What is sent then is lost, and so is the end of either side; healed, whoever still waits is told."""
    first, second = proxied.connect(), proxied.connect()
    assert [ask(first, b"a"), ask(second, b"b")] == [b"A", b"B"]
    proxied.control.cut("a", "silence")
    first.sendall(b"lost")
    assert is_silent(first)
    second.shutdown(socket.SHUT_WR)
    assert is_silent(second)
    assert ask(proxied.connect(), b"c") == b"C"
    assert b"lost" not in proxied.echo.got
    proxied.control.heal("a")
    with pytest.raises(ConnectionResetError):
        first.recv(1)
