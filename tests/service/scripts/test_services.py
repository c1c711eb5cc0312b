"""A RabbitMQ node's port mapper ends with the node, whenever that is killed: Erlang itself would make a daemon of it."""

import os
import signal
import subprocess

import pytest

from scripts.stack.ports import free_port, port_is_free
from scripts.stack.services import RabbitMQ
from tests.waiting import until


@pytest.fixture
def node(tmp_path):
    """One that does not run."""
    made = RabbitMQ(tmp_path / "rabbitmq", free_port())
    yield made
    subprocess.run(["epmd", "-kill"], env=made.environment(), capture_output=True, check=False)


@pytest.fixture
def is_mapped(node):
    """Whether its port mapper listens."""
    port = int(node.environment()["ERL_EPMD_PORT"])
    return lambda: not port_is_free(port)


def test_who_kills_a_node_that_starts_kills_its_port_mapper(node, is_mapped):
    service = node.service()
    process = subprocess.Popen(
        service.command, env={**os.environ, **service.environment}, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        until(is_mapped, "the port mapper")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    until(lambda: not is_mapped(), "the port mapper to end")


def test_a_node_starts_no_port_mapper_by_itself(node, is_mapped):
    """RabbitMQ runs this command first, in a group of its own: who kills the node does not reach it."""
    starter = ["erl", "-sname", "epmd-starter", "-noinput", "-s", "erlang", "halt"]
    done = subprocess.run(starter, env=node.environment(), capture_output=True, timeout=120, check=False)
    assert (done.returncode != 0, is_mapped()) == (True, False)
