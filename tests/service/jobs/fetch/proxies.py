"""Real proxies, each a process of its own: proxy.py for HTTP, tiny-proxy for SOCKS."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.stack.services import Guard
from tests.waiting import until

USER, PASSWORD = "us er", "p@ss:w/rd,1"
WRITTEN = "us%20er:p%40ss%3Aw%2Frd%2C1"  # both, in a URL

SOCKS = """
import logging, sys
import anyio
from tiny_proxy import Socks5ProxyHandler
async def main():
    handler = Socks5ProxyHandler(*sys.argv[1:])
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    print("listens on port", listener.extra(anyio.abc.SocketAttribute.local_port), file=sys.stderr, flush=True)
    await listener.serve(handler.handle)
logging.basicConfig(level="INFO")
anyio.run(main)
"""
# How the proxies resolve names below .test: 127-0-0-1.test is 127.0.0.1.
NAMES = """
import socket
system = socket.getaddrinfo
def getaddrinfo(host, *args, **options):
    name = host.decode() if isinstance(host, bytes) else host
    is_ours = isinstance(name, str) and name.endswith(".test")
    return system(name.removesuffix(".test").replace("-", ".") if is_ours else host, *args, **options)
socket.getaddrinfo = getaddrinfo
"""
_PORT = re.compile(r"listens on port (\d+)")
_ASKED = re.compile(r"CONNECT \('[^']*', \d+\) -> \('([^']*)', (\d+)\)")
_ANSWERED = re.compile(r" - (CONNECT|GET|POST) (\S+?):(\d+)(/\S*)? - ")


class RunningProxy:
    """A running proxy on ``port``; ``asked`` are its requests so far."""

    def __init__(self, scheme: str, log: Path, process: subprocess.Popen, port: int) -> None:
        self.scheme, self._log, self.process, self.port = scheme, log, process, port

    def url(self, credentials: str = WRITTEN, scheme: str = "", host: str = "127.0.0.1") -> str:
        return f"{scheme or self.scheme}://{credentials}{'@' if credentials else ''}{host}:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def asked(self) -> list[str]:
        """Requests like ``CONNECT 127.0.0.1:80``; an HTTP proxy logs them when the connection is over."""
        if self.scheme == "socks5":
            return [f"CONNECT {host}:{port}" for host, port in _ASKED.findall(self.log)]
        return [f"{method} {host}:{port}" for method, host, port, _ in _ANSWERED.findall(self.log)]


@contextlib.contextmanager
def running(
    folder: Path, scheme: str = "http", *, certificate: tuple[Path, Path] | None = None, is_open: bool = False
) -> Iterator[RunningProxy]:
    """A proxy of a scheme: http, https (with a certificate and its key), or socks5. Unless ``is_open`` it wants our password."""
    folder.mkdir(exist_ok=True)
    log, port_file = folder / "log", folder / "port"
    (folder / "sitecustomize.py").write_text(NAMES)
    if scheme == "socks5":
        words = ["-c", SOCKS, *([] if is_open else [USER, PASSWORD])]
    else:
        words = ["-m", "proxy", "--hostname", "127.0.0.1", "--port", "0", "--port-file", str(port_file)]
        words += ["--num-workers", "1", "--num-acceptors", "1", "--data-dir", str(folder), "--log-file", str(log)]
        words += [] if is_open else ["--basic-auth", f"{USER}:{PASSWORD}"]
        if certificate is not None:
            words += ["--cert-file", str(certificate[0]), "--key-file", str(certificate[1])]
    with (folder / ("log" if scheme == "socks5" else "out")).open("wb") as out:
        environ = {**os.environ, "PYTHONPATH": str(folder)}
        process = subprocess.Popen(
            [sys.executable, *words], stdout=out, stderr=out, env=environ, start_new_session=True
        )
    guard = Guard(["/bin/sh", "-c", 'kill -KILL -"$1"', "guard", str(process.pid)])
    try:

        def port() -> int | None:
            assert process.poll() is None, (folder / "out").read_text()
            if scheme != "socks5":
                return int(port_file.read_text() or 0) if port_file.exists() else None
            found = _PORT.search(log.read_text())
            return int(found[1]) if found else None

        yield RunningProxy(scheme, log, process, until(port, "the proxy to listen", 60))
    finally:
        stop(process)
        guard.dismiss()


def stop(process: subprocess.Popen) -> None:
    """Stops it and its children; may be called twice."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
