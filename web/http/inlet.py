"""One thread accepts connections and collects requests until they are whole, so that no handler waits for a client's bytes.

    accept ─ arm ─┬─ bytes ─ Receiver.feed ─┬─ not whole: arm again
                  │                         ├─ whole: a worker thread (the next request waits for its answer)
                  │                         └─ Malformed: a problem document, and the connection ends
                  └─ the deadline: 408, or just closed if nothing was sent

It replaces cheroot's ``ConnectionManager``: cheroot calls ``put``, ``run``, ``stop`` and ``close``.
"""

import contextlib
import os
import select
import socket as sockets
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from regions import logs
from web.http import problems
from web.http.receive import Malformed

if TYPE_CHECKING:  # the server imports this module
    from web.http.server import Connection, Server

IDLE_SECONDS: Final = 60.0  # for a connection without a request
HEAD_SECONDS: Final = 10.0  # for a head, from its first byte to its end
SLOW_HEAD_SECONDS: Final = 2.0  # a head that takes longer gives its place to another client, if there is no other
BODY_SECONDS: Final = 30.0  # for a body, from the end of its head
READ_BYTES: Final = 65_536  # at once; other connections wait while they are parsed
ACCEPT_AT_ONCE: Final = 64
BEAT_SECONDS: Final = 0.5  # how often deadlines are checked
CALM_SECONDS: Final = 2.0  # the same while there is no connection; no deadline is so soon
END_SECONDS: Final = 5.0  # how long a stop waits for the thread
FULL_SECONDS: Final = 5.0  # for how long a lack of room is reported
WARN_SECONDS: Final = 60.0  # between two equal warnings
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

log = logs.get("http")


class Inlet:
    """The connections whose next request is not whole. Other threads may call only ``put``."""

    can_add_keepalive_connection = True  # cheroot reads this

    def __init__(self, server: "Server", connections_max: int) -> None:
        self._server, self._connections_max = server, connections_max
        self._epoll = select.epoll()
        self._listener: sockets.socket = server.socket
        self._listener.setblocking(False)
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._waiting = select.poll()  # clients that are not accepted yet
        self._waiting.register(self._listener.fileno(), select.POLLIN)
        self._armed: dict[int, Connection] = {}  # by descriptor; those that have waited longest come first
        self._beat = time.monotonic()
        self._warned = -WARN_SECONDS
        self._full: tuple[float, str] = (-FULL_SECONDS, "")  # when it was last (monotonic), and why
        self._stopping = self._is_deaf = False
        self._ended = threading.Event()
        self._ended.set()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)

    def run(self, beat_seconds: float) -> None:
        """Serves until it is stopped."""
        self._ended.clear()
        try:
            while not self._stopping:
                is_calm = not self._armed and not self._is_deaf
                self.run_once(CALM_SECONDS if is_calm else min(beat_seconds, BEAT_SECONDS))
        finally:
            self._ended.set()

    def run_once(self, timeout_seconds: float) -> None:
        """Reads what clients have sent, and once a beat ends connections whose time is over."""
        is_asked = False
        for fd, _ in self._epoll.poll(timeout_seconds):
            if fd == self._listener.fileno():
                is_asked = True
            elif (connection := self._armed.pop(fd, None)) is not None:
                self._read(connection)
        if is_asked:  # last, so that a client that has just sent something does not count as idle when room is made
            self._accept()
        now = time.monotonic()
        if now - self._beat >= timeout_seconds:
            self._beat = now
            self._hear(is_open=True)
            for connection in [one for one in list(self._armed.values()) if one.deadline <= now]:
                del self._armed[connection.fileno()]
                self._expire(connection)

    def stop(self) -> None:
        """Ends ``run``, and returns when it has ended."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._ended.wait(END_SECONDS)

    def close(self) -> None:
        """Closes all waiting connections."""
        for connection in list(self._armed.values()):
            connection.close_now()
        self._armed.clear()
        self._epoll.close()
        os.close(self._wake)

    def put(self, connection: "Connection") -> None:
        """Takes back a connection whose request is answered. Its next request may be here already."""
        connection.deadline = time.monotonic() + IDLE_SECONDS
        if connection.received_bytes:
            self._take(connection, b"", is_new=True)
        else:
            self._arm(connection)

    def _accept(self) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            try:
                socket, address = self._listener.accept()
            except (BlockingIOError, ConnectionError):  # no connection, or one that is gone again
                return
            except OSError as error:  # no descriptor is left; Linux says so also if nobody waits for one
                if not self._waiting.poll(0):
                    return
                self._warn(str(error))
                if not self._make_room():
                    self._hear(is_open=False)
                return
            socket.setblocking(False)
            connection = self._server.connect(socket, address)
            connection.deadline = time.monotonic() + IDLE_SECONDS
            if len(self._server.connections) > self._connections_max:
                self._warn(f"expected {self._connections_max} connections at most")
                if not self._make_room():
                    connection.close_now()
                    return
            self._arm(connection, is_new=True)

    def _hear(self, *, is_open: bool) -> None:
        """Accepts connections, or leaves new ones in the kernel's backlog until the next beat."""
        if is_open is self._is_deaf:
            self._is_deaf = not is_open
            self._epoll.modify(self._listener.fileno(), select.EPOLLIN if is_open else 0)

    def _make_room(self) -> bool:
        """Closes the connection that has been idle for longest, or else one whose head takes long; False if there is none."""
        for fd, connection in list(self._armed.items()):
            if not connection.received_bytes:
                del self._armed[fd]
                connection.close_now()
                return True
        # A head comes in one piece or two. Without this, clients that send half of one keep everybody out, operators too.
        slow_at = time.monotonic() + HEAD_SECONDS - SLOW_HEAD_SECONDS
        for fd, connection in list(self._armed.items()):
            if not connection.receiver.has_head and connection.deadline < slow_at:
                del self._armed[fd]
                connection.close_now()
                return True
        return False

    @property
    def full(self) -> str:
        """Why connections are refused or closed for want of room; empty if none was within the last seconds."""
        at, why = self._full
        return why if time.monotonic() - at < FULL_SECONDS else ""

    def _warn(self, reason: str) -> None:
        now = time.monotonic()
        self._full = (now, reason)
        if now - self._warned >= WARN_SECONDS:
            self._warned = now
            log.warning("too many connections: those without a request are closed", reason=reason)

    def _read(self, connection: "Connection") -> None:
        try:
            data = connection.socket.recv(READ_BYTES)
        except BlockingIOError:
            self._arm(connection)
            return
        except OSError:  # reset
            connection.close_now()
            return
        if data:
            self._take(connection, data, is_new=not connection.received_bytes)
        elif connection.received_bytes:
            connection.refuse(problems.protocol(400, "expected the rest of the request, found its end"))
        else:
            connection.close_now()

    def _take(self, connection: "Connection", data: bytes, *, is_new: bool) -> None:
        """Adds ``data`` to a connection's request, and hands the request on if it is whole. ``is_new``: it had none before."""
        try:
            self._receive(connection, data, is_new=is_new)
        except Malformed as error:
            connection.refuse(problems.protocol(error.status, error.detail))
        except Exception:
            log.exception("receiving failed")
            connection.close_now()

    def _receive(self, connection: "Connection", data: bytes, *, is_new: bool) -> None:
        receiver = connection.receiver
        had_head = receiver.has_head
        received = receiver.feed(data)
        over = connection.hold(receiver.held + (len(received.body or b"") if received is not None else 0))
        if over:
            connection.refuse(problems.crowded(over).answer())
            return
        if received is not None:
            connection.received = received
            self._server.process_conn(connection)
            return
        if receiver.has_head and not had_head:
            connection.deadline = time.monotonic() + BODY_SECONDS
            if receiver.wants_continue:
                with contextlib.suppress(OSError):  # the next read will notice
                    os.write(connection.fileno(), CONTINUE)
        elif receiver.held and is_new:
            connection.deadline = time.monotonic() + HEAD_SECONDS
        self._arm(connection)

    def _arm(self, connection: "Connection", *, is_new: bool = False) -> None:
        """Waits for the connection's next bytes. From now on only this thread uses it."""
        fd = connection.fileno()
        self._armed[fd] = connection
        call: Callable[[int, int], object] = self._epoll.register if is_new else self._epoll.modify
        try:
            call(fd, select.EPOLLIN | select.EPOLLONESHOT)
        except (OSError, ValueError):  # the server has stopped, or another connection has the descriptor by now
            if self._armed.get(fd) is connection:
                del self._armed[fd]
                connection.close_now()

    def _expire(self, connection: "Connection") -> None:
        if not connection.received_bytes:
            connection.close_now()
        elif connection.receiver.has_head:
            connection.refuse(problems.protocol(408, f"expected the whole body {BODY_SECONDS:g} s after its head"))
        else:
            connection.refuse(
                problems.protocol(408, f"expected the whole head {HEAD_SECONDS:g} s after its first byte")
            )
