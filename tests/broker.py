"""The RabbitMQ node that all tests of a run share: a module has a virtual host of its own on it.

The first process that needs the node starts it, in the folder that ``TEST_RABBITMQ`` names; all others find it there. Who
makes that folder ends the node: pytest's own process does, of all its workers; or whoever runs tests again and again and
wants one node for all of these runs (``tests.mutation``):

    with broker.shared(os.environ) as environment:
        subprocess.run([sys.executable, "-m", "pytest", …], env=environment)
"""

import contextlib
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from regions import topology
from scripts.stack.ports import free_port
from scripts.stack.services import Guard, RabbitMQ, Running

FOLDER = "TEST_RABBITMQ"
# $1 is the folder; there may be no node in it.
END = """
[ -e "$1/group" ] && kill -KILL -"$(cat "$1/group")"
rm -rf "$1"
"""


@contextlib.contextmanager
def shared(environ: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The environment for runs of tests that share a node, which ends here, or with this process.

    Where somebody else shares one already it is theirs, and stays.
    """
    if FOLDER in environ:
        yield dict(environ)
        return
    folder = Path(tempfile.mkdtemp(prefix="nearfetch-broker-"))
    end = ["/bin/sh", "-c", END, "end", str(folder)]
    guard = Guard(end)
    try:
        yield {**environ, FOLDER: str(folder)}
    finally:
        guard.end()


def node() -> RabbitMQ:
    """The node of this run, which is started where nobody has yet."""
    folder = Path(os.environ[FOLDER])
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = folder / "node.json"
        if not known.exists():
            _start(folder, known)
        return RabbitMQ(folder / "node", **json.loads(known.read_text()))


def _start(folder: Path, known: Path) -> None:
    made = RabbitMQ(folder / "node", free_port())
    running = Running(made.service()).start()
    (folder / "group").write_text(str(running.process.pid))
    running.let_go()
    running.process.returncode = 0  # nobody here waits for it, and Popen would complain of that
    known.write_text(json.dumps({"port": made.port, "password": made.password}))


def set_policy(
    on: RabbitMQ, name: str, pattern: str, policy: Mapping[str, object], *, priority: int = 9, host: str = "/"
) -> None:
    """As ``rabbitmqctl set_policy``, which takes a second of CPU."""
    pattern, text = json.dumps(pattern), json.dumps(json.dumps(policy))  # a text of Erlang is one of JSON
    on.evaluate(f"""
        ok = rabbit_policy:parse_set(
            <<"{host}">>, <<"{name}">>, <<{pattern}>>, <<{text}>>, {priority}, <<"queues">>, <<"{on.user}">>).
    """)


def clear_policy(on: RabbitMQ, name: str, *, host: str = "/") -> None:
    on.evaluate(f'ok = rabbit_policy:delete(<<"{host}">>, <<"{name}">>, <<"{on.user}">>).')


class VirtualHost:
    """A virtual host of a node, with our policy."""

    def __init__(self, on: RabbitMQ, name: str) -> None:
        self.node, self.name, self.port = on, f"{name}-{secrets.token_hex(4)}", on.port
        self.url = f"{on.url.removesuffix('%2F')}{quote(self.name, safe='')}"
        self._host, self._user = f'<<"{self.name}">>', f'<<"{on.user}">>'
        all_ = '<<".*">>'
        on.evaluate(f"""
            ok = rabbit_vhost:add({self._host}, {self._user}),
            ok = rabbit_auth_backend_internal:set_permissions(
                {self._user}, {self._host}, {all_}, {all_}, {all_}, {self._user}).
        """)
        self.set_policy(topology.POLICY_NAME, topology.POLICY_PATTERN, topology.POLICY, priority=0)

    def set_policy(self, name: str, pattern: str, policy: Mapping[str, object], *, priority: int = 9) -> None:
        set_policy(self.node, name, pattern, policy, priority=priority, host=self.name)

    def clear_policy(self, name: str) -> None:
        clear_policy(self.node, name, host=self.name)

    def delete(self) -> None:
        self.node.evaluate(f"rabbit_vhost:delete({self._host}, {self._user}).")
