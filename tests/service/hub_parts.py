"""What the tests of the hub's half share: settings that point at the test's servers, and made requests."""

from collections.abc import Iterable
from pathlib import Path

from jobs import contract, result_frame
from regions import names
from regions.settings import Region, Settings, load
from web.hub import ids, scripts
from web.hub.ledger import Ledger
from web.hub.new_request import New, NewTask, Times
from web.hub.settlement import Settlement


def settings(tmp_path: Path, *, redis: str = "", amqp: str = "", **environ: str) -> Settings:
    """Real settings, read from the environment as a process would; three regions."""
    folder = tmp_path / "regions"
    folder.mkdir(exist_ok=True)
    for region in ("fra", "nyc", "sin"):
        (folder / f"{region}.toml").write_text(f'title = "{region}"\n')
    found = {"NEARFETCH__REGIONS__PATH": str(folder), **environ}
    if redis:
        found["NEARFETCH__HUB__REDIS"] = redis
    if amqp:
        found["NEARFETCH__HUB__AMQP"] = amqp
    return load(found)


class Heard(list[str]):
    """What a settler told: the requests with news. No client waits here."""

    def wanted(self, _requests: object) -> list[str]:
        """None."""
        return []

    def news(self, requests: Iterable[str], _views: object = None) -> None:
        """Notes them."""
        self.extend(requests)


def new_request(regions: tuple[str, ...] = ("fra",), *, deadline_ms: int = 30_000, sync: bool = False) -> New:
    """A validated request with a task in each of the regions."""
    request = ids.new()
    tasks = [
        NewTask(
            id=ids.task(request, number),
            source="ecb.rates",
            region=region,
            params={},
            url="https://www.ecb.europa.eu/x",
            host="https://www.ecb.europa.eu:443",
            definition="0a1b2c3d",
        )
        for number, region in enumerate(regions, 1)
    ]
    return New(id=request, tasks=tasks, deadline_ms=deadline_ms, attrs=b'{"a": [1]}', sync=sync)


def accepted(ledger: Ledger, regions: tuple[str, ...] = ("fra",), **options) -> tuple[New, Times]:
    """A request that was accepted."""
    new = new_request(regions, **options)
    times = ledger.begin(new)
    assert ledger.accept([new.id])[0] == [True]
    return new, times


def frame(task: NewTask, records: bytes = b'[{"currency":"USD","rate":"1.1"}]') -> bytes:
    """A result as a region makes it."""
    result = contract.Result(task=task.id, source=task.source, region=task.region, status="succeeded", count=1)
    return result_frame.encode(result, records)


def settle(
    ledger: Ledger, client, new: New, index: int, records: bytes = b'[{"a":1}]', *, status: str = "succeeded"
) -> str:
    """Ends a task as its region's result would; returns its id."""
    task = new.tasks[index]
    result = contract.Result(task=task.id, source=task.source, region=task.region, status=status, count=1)
    if status == "failed":
        result.error = contract.Error(type="http_status", message="404", origin="target", http_status=404)
    body = result_frame.encode(result, records)
    client.set(names.result(task.region, task.id), body)
    one = Settlement(
        request=new.id,
        task=task.id,
        region=task.region,
        status=status,
        finished_ms=ledger.now_ms(),
        size_bytes=len(result_frame.splice(body)),
    )
    (answer,) = ledger.settle([one])
    assert answer in scripts.ENDED, answer
    return task.id


def send_home(
    client,
    new: New,
    task: NewTask,
    finished_ms: int,
    *,
    status: str = "succeeded",
    v: int = 1,
    trail: bytes = b"",
) -> None:
    """What a region does with a result: one MULTI, appending only."""
    body = frame(task)
    pipeline = client.pipeline(transaction=True)
    pipeline.set(names.result(task.region, task.id), body, nx=True, pxat=finished_ms + 3_600_000)
    pipeline.xadd(
        names.out_stream(task.region),
        {"k": "result", "v": v, "q": new.id, "t": task.id, "s": status, "f": finished_ms, "b": len(body), "h": trail},
    )
    pipeline.execute()


__all__ = ["Region", "accepted", "frame", "new_request", "send_home", "settings", "settle"]
