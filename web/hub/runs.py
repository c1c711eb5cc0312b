"""What the hub learns about sources from their runs. It is kept in the central Redis and written once a second.

    Settler ── add, for each settled task ──> Runs ── flush: one round trip a second, if there is something new
        nf:runs:{source}     the runs that count, newest first, for web.hub.verdict
        nf:health            the verdict on each source, and since when; the gateway that writes a change logs it
        web.hub.traffic      sums of bytes
        web.hub.recent       what the last minutes and the last day were like

A run is written once, or never if a gateway or the hub dies in that second; only refused writes are repeated. A network
failure waits until it is known what happened to other sources after it (web.hub.reach).
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import redis
from msgspec import Struct

from jobs.contract import Run
from regions import logs, names
from regions.script import send, value
from web.hub import scripts
from web.hub.reach import AROUND_MS, Reach
from web.hub.recent import Recent
from web.hub.traffic import Traffic
from web.hub.verdict import KEPT, Verdict, counts, is_the_networks, judge

JUDGE_SECONDS: Final = 2.0  # between two judgements of a source
JUDGED_MAX: Final = 50  # sources in one flush
WAIT_SECONDS: Final = AROUND_MS / 1000 + 5  # until a network failure is judged
KEPT_SECONDS: Final = 30 * 86_400  # how long runs are kept after the last one

log = logs.get("health")
_encoder = msgspec.json.Encoder()
_runs: Final = msgspec.json.Decoder(Run)


class Learned(Struct, frozen=True):
    """A source's verdict, and since when its health has been the same (hub ms)."""

    since_ms: int
    verdict: Verdict


class _Doubt(Struct, frozen=True):
    """A network failure, and when it can be judged (monotonic seconds)."""

    due: float
    region: str
    run: Run
    finished_ms: int


_learned: Final = msgspec.json.Decoder(Learned)


class Runs:
    """Runs that one gateway has read and not written yet. For one thread; ``clock`` is monotonic, in seconds."""

    def __init__(self, client: redis.Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._clock = client, clock
        self._reach = Reach()
        self._traffic = Traffic(clock)
        self._recent = Recent(clock)
        self._new: dict[str, deque[Run]] = {}  # by source, oldest first
        self._doubts: deque[_Doubt] = deque(maxlen=100 * KEPT)
        self._unjudged: set[str] = set()
        self._judged: dict[str, float] = {}
        self._is_failing = False

    def add(self, region: str, run: Run, finished_ms: int, task: str = "") -> None:
        """Adds the run of a settled task. Call it once for each task."""
        self._traffic.add(region, run)
        self._recent.add(region, run, finished_ms, task)
        if not counts(run):
            return
        self._reach.note(region, run, finished_ms)
        if is_the_networks(run):
            self._doubts.append(_Doubt(self._clock() + WAIT_SECONDS, region, run, finished_ms))
        else:
            self._keep(run)

    def flush(self) -> None:
        """Writes new runs and judges sources that changed. Never raises: what may not have arrived is lost."""
        while self._doubts and self._doubts[0].due <= self._clock():
            doubt = self._doubts.popleft()
            if self._reach.blames_the_host(doubt.region, doubt.run, doubt.finished_ms):
                self._keep(doubt.run)
        due = [source for source in self._unjudged if self._judged.get(source, float("-inf")) <= self._clock()]
        if not self._new and not self._traffic and not self._recent and not due:
            return
        try:
            self._write(due[:JUDGED_MAX])
        except redis.exceptions.RedisError as error:
            if not self._is_failing:
                log.info("runs could not be written", error=str(error))
            self._is_failing = True
        else:
            self._is_failing = False

    def _keep(self, run: Run) -> None:
        self._new.setdefault(run.source, deque(maxlen=KEPT)).append(run)
        self._unjudged.add(run.source)

    def _write(self, due: list[str]) -> None:
        new, self._new = self._new, {}
        runs = [("LPUSH", names.runs(source), *map(_encoder.encode, found)) for source, found in new.items()]
        traffic = self._traffic.commands()
        commands: list[tuple[Any, ...]] = [*runs, *traffic, *self._recent.commands()]
        for source in new:
            commands.append(("LTRIM", names.runs(source), 0, KEPT - 1))
            commands.append(("EXPIRE", names.runs(source), KEPT_SECONDS))
        for source in due:
            commands += [("LRANGE", names.runs(source), 0, KEPT - 1), ("HGET", names.HEALTH, source)]
        replies = send(self._client, [*commands, ("TIME",)], [])
        for source, reply in zip(new, replies, strict=False):
            if isinstance(reply, Exception):
                self._new[source] = new[source]
        now_ms = int(value(replies[-1])[0]) * 1000
        self._traffic.replied(traffic, replies[len(runs) :], now_ms)
        self._recent.replied(now_ms)
        *answers, _ = map(value, replies)
        if due:
            self._judge(due, answers[-2 * len(due) :], now_ms)

    def _judge(self, due: list[str], answers: list[Any], now_ms: int) -> None:
        """Judges sources by their runs in Redis. A verdict is written only if no other gateway wrote one meanwhile."""
        found: list[tuple[str, Verdict | None, Verdict]] = []
        commands = []
        for index, source in enumerate(due):
            runs, kept = map(_run, answers[2 * index]), answers[2 * index + 1]
            readable = [run for run in runs if run is not None]
            if not readable:
                self._unjudged.discard(source)
                continue
            was = _kept(kept)
            verdict = judge(readable)
            is_same = was is not None and was.verdict.health == verdict.health
            since_ms = was.since_ms if was is not None and is_same else now_ms
            text = _encoder.encode(Learned(since_ms, verdict))
            commands.append(
                scripts.JUDGE.command(verdicts=names.HEALTH, source=source, before=kept or b"", verdict=text)
            )
            found.append((source, was.verdict if was is not None else None, verdict))
        replies = send(self._client, commands, [scripts.JUDGE]) if found else []
        for (source, before, verdict), reply in zip(found, replies, strict=True):
            if not value(reply):  # another gateway judged it just now; the next flush judges it again
                continue
            self._unjudged.discard(source)
            self._judged[source] = self._clock() + JUDGE_SECONDS
            if verdict.health != (before.health if before is not None else "ok"):
                _log_change(source, verdict)
            if verdict.notes and not (before is not None and before.notes):
                log.warning("source saves nothing", source=source, definition=verdict.definition, reasons=verdict.notes)


def learned(client: redis.Redis) -> dict[str, Learned]:
    """The verdict on each source that has one, in one round trip. Raises what redis-py raises."""
    found: Any = client.hgetall(names.HEALTH)
    return learned_of(found)


def learned_of(found: Mapping[bytes, bytes]) -> dict[str, Learned]:
    """The same, from the fields of ``names.HEALTH``."""
    kept = {source.decode(): _kept(text) for source, text in found.items()}
    return {source: one for source, one in kept.items() if one is not None}


def last_runs(client: redis.Redis, source: str) -> list[Run]:
    """The last runs of a source, newest first. Raises what redis-py raises."""
    texts: Any = client.lrange(names.runs(source), 0, KEPT - 1)
    return [run for run in map(_run, texts) if run is not None]


def _log_change(source: str, verdict: Verdict) -> None:
    if verdict.health == "degraded":
        log.warning("source degraded", source=source, definition=verdict.definition, reasons=verdict.reasons)
    else:
        log.info("source recovered", source=source, definition=verdict.definition)


def _run(text: bytes) -> Run | None:
    try:
        return _runs.decode(text)
    except msgspec.DecodeError:  # of another version
        return None


def _kept(text: bytes | None) -> Learned | None:
    if text is None:
        return None
    try:
        return _learned.decode(text)
    except msgspec.DecodeError:
        return None
