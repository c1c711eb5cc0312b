"""Connections that wait for their next request."""

import socket
from types import SimpleNamespace
from typing import Any, cast

from web.http.inlet import Inlet


def test_a_connection_that_made_room_takes_none_from_the_one_that_has_its_descriptor():
    """Another thread was about to arm it. The new one would have waited for ever: nobody looked at it again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inlet = Inlet(cast("Any", SimpleNamespace(socket=listener)), 1)
        closed: list[str] = []
        made_room, accepted = (
            cast(
                "Any",
                SimpleNamespace(fileno=lambda: 99, received_bytes=0, close_now=lambda name=name: closed.append(name)),
            )
            for name in ("made room", "accepted")
        )
        epoll = inlet._epoll

        class Meanwhile:
            """The inlet's thread closes the connection, and accepts another one, just before it is armed."""

            def modify(self, fd: int, _events: int) -> None:
                inlet._make_room()
                inlet._armed[fd] = accepted
                epoll.modify(fd, 0)  # refused, as what is not registered

        inlet._epoll = cast("Any", Meanwhile())
        inlet.put(made_room)
        inlet._epoll = epoll
        assert (inlet._armed, closed) == ({99: accepted}, ["made room"])
        inlet.close()
