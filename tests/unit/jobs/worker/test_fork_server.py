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


SERVED = """
import os, socket, time
from jobs.worker import fork_server
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if os.fork() == 0:
    ours.close()
    os._exit(fork_server.serve(theirs.detach(), lambda name, beat, *told: print(name, *told, flush=True) or 0))
theirs.close()
ours.setblocking(False)
server = fork_server.ForkServer(None, [], 0)
server._channel = ours
beat = os.open(os.devnull, os.O_WRONLY)
for name, ahead_of_boot_ms in (("knows", 1_795_892_631_665), ("knows-nothing", None)):
    process = server.start(name, beat, "alone", 7, ahead_of_boot_ms)
    until = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
"""


def test_a_new_process_is_told_what_its_pool_knows_of_the_regions_clock():
    """Else a step just before its first call would be taken as the time, and those who know better would give in."""
    done = subprocess.run([sys.executable, "-c", SERVED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "knows alone 7 1795892631665\nknows-nothing alone 7 None\n", done.stderr


def test_a_stop_that_comes_before_the_new_process_listens_is_not_lost():
    """It inherits that the fork server ignores signals."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "-15\n", done.stderr
