"""How commands find the gateway and ask it. Standard library only, for a fast start; ``nearfetch fetch`` asks by the Python client.

The address is ``--url``, else ``NEARFETCH_URL``, else the one that a running ``scripts/up`` wrote into its data folder. The API key is
``NEARFETCH_KEY``, else the first line of the file ``NEARFETCH_KEY_FILE``, else the one in that folder if the address is its own.
"""

import http.client
import json
import os
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from scripts.stack.data_folder import DataFolder, default_path

CONNECT_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 45.0  # a stream sends something every 15 s


class NoGateway(RuntimeError):  # noqa: N818
    """No gateway answers. The message says where it was looked for, and what to do."""


class Refused(RuntimeError):  # noqa: N818
    """The gateway answered with a problem document."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(_describe(status, problem))
        self.status = status


class GatewayClient:
    """A client of one gateway. Each call has a connection of its own."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url, self.key = url.rstrip("/"), key

    @classmethod
    def found(cls, url: str, data: Path | None) -> "GatewayClient":
        """A client of the gateway that the options or the environment name. Raises ``NoGateway``."""
        folder = DataFolder(data or default_path())
        address = url or ("" if data else os.environ.get("NEARFETCH_URL", "")) or folder.url
        if not address:
            raise NoGateway(
                f"No gateway: nothing runs on {folder.path}. Start scripts/up, or name one with --url or NEARFETCH_URL."
            )
        if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
            raise NoGateway(f"No gateway: expected an address like http://127.0.0.1:8080, found {address}")
        return cls(address, _key(folder, address))

    def get(self, path: str, timeout_seconds: float = CONNECT_SECONDS) -> Any:
        """A JSON answer. Raises ``Refused`` for a status other than 2xx, and ``NoGateway`` when no gateway answers."""
        return self._json("GET", path, None, timeout_seconds)

    def status(self, path: str, timeout_seconds: float = CONNECT_SECONDS) -> tuple[int, Any]:
        """The status and the JSON body, whatever they are. Raises ``NoGateway``."""
        response, connection = self._open("GET", path, None, {}, timeout_seconds)
        try:
            return response.status, _decode(response.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any) -> Any:
        """Posts JSON. Raises like ``get``."""
        return self._json("POST", path, json.dumps(body).encode())

    def posts(self, path: str, body: Any, times: int, headers: Mapping[str, str]) -> Iterator[tuple[float, float, Any]]:
        """Posts the same JSON several times on one connection. Raises like ``get``.

        Yields for each when it was sent and answered (``time.time``), and the answer.
        """
        path, content = urllib.parse.urlsplit(self.url).path + path, json.dumps(body).encode()
        headers = {"Accept": "application/json", "Content-Type": "application/json", **self._authorization(), **headers}
        connection = self._connection(SILENCE_SECONDS)
        try:
            for _ in range(times):
                try:
                    sent = time.time()
                    connection.request("POST", path, content, headers)
                    response = connection.getresponse()
                    answer = response.read()
                    answered = time.time()
                except (OSError, http.client.HTTPException) as error:
                    raise self._silent(error) from error
                if not 200 <= response.status < 300:
                    raise Refused(response.status, _problem(answer))
                yield sent, answered, _decode(answer)
        finally:
            connection.close()

    def _json(self, method: str, path: str, body: bytes | None, timeout_seconds: float = CONNECT_SECONDS) -> Any:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        response, connection = self._open(method, path, body, headers, timeout_seconds)
        try:
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NoGateway(f"The gateway at {self.url} stopped in the middle of its answer: {error}") from error
        finally:
            connection.close()
        if not 200 <= response.status < 300:
            raise Refused(response.status, _problem(content))
        return _decode(content)

    def _open(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], timeout_seconds: float
    ) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
        connection = self._connection(timeout_seconds)
        try:
            path = urllib.parse.urlsplit(self.url).path + path
            connection.request(method, path, body, {**self._authorization(), **headers})
            return connection.getresponse(), connection
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._silent(error) from error

    def _connection(self, timeout_seconds: float) -> http.client.HTTPConnection:
        parts = urllib.parse.urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.netloc.rpartition("@")[2], timeout=timeout_seconds)

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def _silent(self, error: Exception) -> NoGateway:
        return NoGateway(f"No gateway answers at {self.url}: {error}. Is it running? (scripts/up, or --url)")


def _key(folder: DataFolder, address: str) -> str:
    """The API key for a gateway, "" if none is known. Raises ``NoGateway`` for a file that can't be read."""
    if key := os.environ.get("NEARFETCH_KEY", ""):
        return key.strip()
    if file := os.environ.get("NEARFETCH_KEY_FILE", ""):
        try:
            return Path(file).read_text(encoding="ascii").partition("\n")[0].strip()
        except (OSError, ValueError) as error:
            raise NoGateway(f"No key: expected a readable file in NEARFETCH_KEY_FILE, found {error}") from error
    return folder.key if address.rstrip("/") == folder.url else ""


def _decode(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return {"title": content[:200].decode(errors="replace")}


def _problem(content: bytes) -> dict[str, Any]:
    decoded = _decode(content)
    return decoded if isinstance(decoded, dict) else {"title": str(decoded)}


def _describe(status: int, problem: dict[str, Any]) -> str:
    found = [(str(error.get("pointer", "")), str(error.get("detail", ""))) for error in problem.get("errors", [])]
    first = str(problem.get("detail") or "")
    title = f"{status} {problem.get('title') or ''}".strip()
    if found and first == found[0][1]:
        first = ""  # it is listed below with its pointer
    return "\n".join([f"{title}: {first}" if first else title, *(f"  {where}: {what}" for where, what in found)])
