"""``nearfetch bridges`` where the supervisor was killed: on a stack of its own."""

import os
import signal

from tests.stack.test_bridges import beating, ensured


def test_without_its_supervisor_cron_keeps_a_bridge_and_stop_ends_it(other):
    """The supervisor is killed, what it started goes on, and then a bridge is killed, too."""
    assert other.nearfetch("bridges", "ensure", "--data", str(other.data.parent), check=False).returncode == 2
    other.up("--detach", "--port", str(other.port))
    pids = other.pids()
    for name in ("supervisord", "bridge-fra"):
        os.kill(pids[name], signal.SIGKILL)
    did, pid = ensured(other)["fra"]
    assert did == [f"process {pids['bridge-fra']} had died, started process {pid}"]
    assert beating(other, "fra") == [pid]
    assert any(line.startswith(f"{pid} ") for line in other.processes())
    other.up("--stop")
    assert other.processes() == []
    assert ensured(other) == {}
