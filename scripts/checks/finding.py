"""Findings of checks, and how checks run in parallel.

Check      the name of a check, and the function that looks
Finding    one thing that it saw: fine, wrong, or could be better, with its cost and what mends it
beside     runs checks in parallel, each with its own time-out
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct, structs

from regions.secret import is_password
from regions.settings import Settings

# wrong: something does not work, or a promise may break. better: it works, and would be quicker or safer.
# unseen: it can't be seen from here.
Severity = Literal["fine", "wrong", "better", "unseen"]
AT_ONCE: Final = 32
TICK_SECONDS: Final = 0.05
SHORTEST_SECRET: Final = 4  # characters; a shorter one would also be found in words that are none


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was seen. ``check``: its kind, like ``connection``; ``what``: of which part; ``where``: its place.

    ``note`` tells what is fine, or why something can't be seen. ``cost`` is what clients or operators notice, ``mend`` the command.
    """

    check: str
    what: str
    severity: Severity
    where: str = ""
    note: str = ""
    expected: str = ""
    found: str = ""
    cost: str = ""
    mend: str = ""


@dataclass(frozen=True)
class Check:
    """``look`` gives the findings; it may raise nothing but faults of ours. ``cost``: of a ``what`` that does not answer in ``seconds``."""

    name: str
    what: str
    look: Callable[[], Iterable[Finding]]
    where: str = ""
    seconds: float = 8.0
    cost: str = ""
    mend: str = ""


def beside(
    checks: Sequence[Check], waiting: Callable[[Sequence[Check]], None]
) -> Iterator[tuple[Check, list[Finding]]]:
    """Runs checks in parallel, and yields each with its findings when it has ended, or when its time is over.

    ``waiting`` is called again and again with those that still run. A check that never ends holds nobody: its thread is left behind.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, list[Finding]]] = queue.SimpleQueue()
    begun: dict[int, float] = {}

    def work() -> None:
        while True:
            try:
                number = todo.get_nowait()
            except queue.Empty:
                return
            begun[number] = time.monotonic()
            done.put((number, _look(checks[number])))

    def start() -> None:
        threading.Thread(target=work, name="check", daemon=True).start()

    for number in range(len(checks)):
        todo.put(number)
    for _ in range(min(AT_ONCE, len(checks))):
        start()
    left = set(range(len(checks)))
    while left:
        try:
            number, findings = done.get(timeout=TICK_SECONDS)
        except queue.Empty:
            waiting([checks[one] for one in sorted(left)])
        else:
            if number in left:
                left.remove(number)
                yield checks[number], findings
        now = time.monotonic()
        for number in sorted(left & begun.keys()):
            check = checks[number]
            if now - begun[number] > check.seconds:
                left.remove(number)
                start()  # in the place of the thread that hangs
                yield check, [_late(check)]


def _look(check: Check) -> list[Finding]:
    try:
        return list(check.look())
    except Exception as error:  # noqa: BLE001 - a fault of one check must not hide what the others find
        found = f"the check itself failed: {type(error).__name__}: {error}"
        return [Finding(check=check.name, what=check.what, where=check.where, severity="wrong", found=found)]


def _late(check: Check) -> Finding:
    return Finding(
        check=check.name,
        what=check.what,
        where=check.where,
        severity="wrong",
        expected=f"an answer within {check.seconds:g} s",
        found="none",
        cost=check.cost,
        mend=check.mend,
    )


class Secrets:
    """Takes the secrets of settings out of texts. Findings are made without them; this holds for what libraries say, too."""

    def __init__(self, settings: Settings, *more: str) -> None:
        self._known = sorted(
            {one for one in (*_secrets(msgspec.to_builtins(settings)), *more) if len(one) >= SHORTEST_SECRET},
            key=len,
            reverse=True,
        )

    def hide(self, finding: Finding) -> Finding:
        """The same finding, with ``(hidden)`` in the place of a secret."""
        texts: dict[str, str] = structs.asdict(finding)
        return Finding(**{name: self._hidden(text) for name, text in texts.items()})  # type: ignore[arg-type]

    def _hidden(self, text: str) -> str:
        for secret in self._known:
            text = text.replace(secret, "(hidden)")
        return text


def _secrets(values: object, key: str = "") -> Iterator[str]:
    """Passwords and values of secrets, and the passwords in URLs."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _secrets(value, str(name))
    elif isinstance(values, str) and values:
        if is_password(key):
            yield values
        elif "@" in values:
            for part in (values, *values.split(",")):  # several hosts, or a password with a comma
                password = _password(part)
                if password:
                    yield password
                    yield unquote(password)


def _password(url: str) -> str:
    try:
        return urlsplit(url.strip()).password or ""
    except ValueError:
        return ""
