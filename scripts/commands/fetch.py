"""``nearfetch fetch``: posts one request, follows its events, and shows each result when it arrives.

The results go to stdout: lines for people, or results as JSON, or with ``csv`` and ``ndjson`` only the records. In the last
two cases everything else goes to stderr.
"""

import json
import shlex
import sys
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import click

from regions.printable import printable, printable_json
from scripts.stack.gateway_client import Event, GatewayClient, NoGateway
from scripts.terminal import counted, duration, less, say, say_json, shown, size

RECONNECTS_MAX: Final = 5
RECONNECT_SECONDS: Final = 0.5
ERROR_WIDTH: Final = 100

HINT: Final = "   --json for the records, --curl for the calls"

Form = Literal["", "json", "csv", "ndjson"]  # "" is for people


def run(
    client: GatewayClient,
    words: Sequence[str],
    *,
    form: Form,
    deadline_seconds: float | None,
    max_age_seconds: float | None,
    curl: bool,
) -> int:
    """Returns 0 when all tasks succeeded, else 1. Raises ``Refused``, ``NoGateway`` and click's ``UsageError``."""
    asked = asked_for(words)
    if form == "csv" and len({source for source, _ in asked}) > 1:
        raise click.UsageError(
            "a CSV has one header, so --csv takes one source, once or several times; --ndjson takes several sources"
        )
    if curl and form in ("csv", "ndjson"):
        if deadline_seconds is not None:
            raise click.UsageError("calls that return only records can't set a deadline; the gateway does")
        show_records_calls(client, asked, form, max_age_seconds)
        return 0
    wanted = [typed(client, source, params) for source, params in asked]
    body: dict[str, Any] = {"sources": wanted}
    if deadline_seconds is not None:
        body["deadline"] = deadline_seconds
    if max_age_seconds is not None:
        body["max_age"] = max_age_seconds
    if curl:
        show_calls(client, body)
        return 0
    began = time.monotonic()
    request = client.post("/v1/requests", body)
    to_stderr = form in ("csv", "ndjson")
    if form != "json":
        regions = {task["region"] for task in request["tasks"]}
        counts = f"{counted(len(request['tasks']), 'task')}, {counted(len(regions), 'region')}"
        say(f"request {request['id']}   {counts}", err=to_stderr)
    results, texts = [], []
    widths = (
        max(len(task["source"]) for task in request["tasks"]),
        max(len(task["region"]) for task in request["tasks"]),
    )
    for event in follow(client, request["links"]["events"]):
        results.append(event.data)
        if form == "csv" and event.data["status"] == "succeeded":
            texts.append(event.text)
        elif form == "ndjson":
            show_lines(event.text)
        if form == "json":
            say_json(event.text)  # the text as it arrived, since it keeps the spelling of numbers
        else:
            say(printable(line(event.data, *widths)), err=to_stderr)
    if texts:
        show_csv(client, asked[0][0], texts)
    if form != "json":
        say(last_line(results, time.monotonic() - began) + ("" if to_stderr else HINT), err=to_stderr)
    return 0 if all(result["status"] == "succeeded" for result in results) else 1


def asked_for(words: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Sources and their params; ``KEY=VALUE`` belongs to the source before it."""
    asked: list[tuple[str, dict[str, str]]] = []
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            asked.append((word, {}))
        elif not asked:
            raise click.UsageError(
                f"{word} is a param; a source stands before its params: nearfetch fetch SOURCE {word}"
            )
        elif not key or key in asked[-1][1]:
            raise click.UsageError(f"expected a param of {asked[-1][0]} once, as KEY=VALUE, found {word}")
        else:
            asked[-1][1][key] = value
    return asked


def typed(client: GatewayClient, source: str, params: dict[str, str]) -> Any:
    """A source as a request's body names it, with each param in the JSON type of its type."""
    if not params:
        return source
    status, known = client.status(f"/v1/sources/{source}")
    types = {name: spec.get("type", "str") for name, spec in known.get("params", {}).items()} if status == 200 else {}
    return {"source": source, "params": {key: as_type(value, types.get(key, "str")) for key, value in params.items()}}


def as_type(text: str, kind: str) -> Any:
    """A text as a param's type. A text that can't be one stays a text, and the gateway says what it expected."""
    if kind in ("int", "integer", "number", "float", "bool", "boolean"):
        try:
            value = json.loads(text)
        except ValueError:
            return text
        return value if isinstance(value, int | float) else text
    return text


def follow(client: GatewayClient, path: str) -> Iterator[Event]:
    """The results as they arrive. Resumes after the last one when the stream breaks."""
    after, failures = "", 0
    while True:
        try:
            for event in client.events(path, after):
                failures = 0
                after = event.id or after
                if event.name == "done":
                    return
                if event.name == "result":
                    yield event
        except NoGateway:
            if failures >= RECONNECTS_MAX:
                raise
        failures += 1
        if failures > RECONNECTS_MAX:
            raise NoGateway(f"The gateway at {client.url} broke off its answer {RECONNECTS_MAX + 1} times.")
        time.sleep(RECONNECT_SECONDS)


def line(result: dict[str, Any], source_width: int, region_width: int) -> str:
    """The line for one result: region, source, records, bytes of the page and of what was sent, duration, remarks."""
    begin = f"  {result['region']:<{region_width}}  {result['source']:<{source_width}}"
    took = duration(result["timing"]["total_ms"] / 1000)
    if result["status"] != "succeeded":
        error = result["error"] or {"type": result["status"], "message": ""}
        return f"{begin}  {result['status']}  {error['type']}: {error['message']}"[: ERROR_WIDTH + 60] + f"   {took}"
    records = f"{counted(result['count'], 'record'):>12}"
    kept = result["bytes"]
    sizes = f"{size(max(kept['received'], kept['spared'])):>9} \u2192 {size(kept['wire']):>8}"
    age = [f"{duration(result['age'])} old"] if result.get("cached") else []
    notes = [*age, *(["partial"] if result["partial"] else []), *result["warnings"]]
    return f"{begin} {records} {sizes} {took:>9}" + (f"   {'; '.join(map(str, notes))}" if notes else "")


def last_line(results: Sequence[dict[str, Any]], seconds: float) -> str:
    """The last line: how many succeeded, in what time, and how many bytes the regions saved."""
    succeeded = [result for result in results if result["status"] == "succeeded"]
    received, spared, wire = (sum(result["bytes"][of] for result in results) for of in ("received", "spared", "wire"))
    return f"{len(succeeded)} of {len(results)} in {duration(seconds)}; {less(received, spared, wire)}."


def show_lines(result: str) -> None:
    """Prints the records of a result's JSON, one on each line, spelt as they are there."""
    from web.api import rows  # noqa: PLC0415

    click.echo(printable_json(rows.ndjson(rows.records_of(result.encode())).decode()), nl=False)


def show_csv(client: GatewayClient, source: str, results: Sequence[str]) -> None:
    """Prints the records of results' JSON as one CSV, with the columns in the order of the source's definition.

    On a terminal, control characters are escaped.
    """
    from web.api import rows  # noqa: PLC0415

    status, known = client.status(f"/v1/sources/{source}")
    columns = known.get("schema", {}).get("properties", {}) if status == 200 else {}
    records = rows.joined(rows.records_of(result.encode()) for result in results)
    table = rows.csv(records, columns)
    click.echo(shown(table.decode().replace("\r\n", "\n")) if sys.stdout.isatty() else table, nl=False)


def show_records_calls(
    client: GatewayClient, asked: Sequence[tuple[str, dict[str, str]]], form: Form, max_age_seconds: float | None
) -> None:
    """Prints, for each source, the curl command of a call that returns only its records."""
    accept = {"csv": "text/csv", "ndjson": "application/x-ndjson"}[form]
    age = {} if max_age_seconds is None else {"max_age": f"{max_age_seconds:.10g}"}
    for source, params in asked:
        query = f"?{urllib.parse.urlencode({**params, **age})}" if params or age else ""
        url = shlex.quote(f"{client.url}/v1/sources/{urllib.parse.quote(source)}/records{query}")
        click.echo(f"curl -sf {url} -H 'Accept: {accept}'")


def show_calls(client: GatewayClient, body: dict[str, Any]) -> None:
    """Prints the two calls as curl commands."""
    content = shlex.quote(printable_json(json.dumps(body, ensure_ascii=False)))
    click.echo(f"curl -s {client.url}/v1/requests -H 'Content-Type: application/json' -d {content}")
    say(f"curl -sN {client.url}/v1/requests/ID/events   # ID is the id in the answer")
