"""What a fork server does at the moment at which it forks."""

import subprocess
import sys

PROGRAM = """
import os, signal, socket
from jobs.worker import fork_server
for number in fork_server.STOPS:
    signal.signal(number, signal.SIG_IGN)
fork = os.fork

def forked():
    pid = fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGTERM)
    return pid

os.fork = forked
ours, theirs = socket.socketpair()
pid = fork_server._fork(theirs, "name", lambda: 0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_stop_that_comes_before_the_new_process_listens_is_not_lost():
    """It inherits that the fork server ignores signals."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "-15\n", done.stderr
