"""``nearfetch fetch``: makes one request by the Python client, and shows each result when it arrives.

The results go to stdout: lines for people, or results as JSON, or with ``csv`` and ``ndjson`` only the records. In the last
two cases everything else goes to stderr.
"""

import json
import shlex
import sys
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import click

from clients.python import nearfetch_client
from clients.python.nearfetch_client import Nearfetch
from regions.printable import printable, printable_json
from scripts.stack.gateway_client import GatewayClient, NoGateway, Refused
from scripts.terminal import counted, duration, less, say, say_json, shown, size

GOES_ON_SECONDS: Final = 30.0  # how long a gateway that took the request may be away
ERROR_WIDTH: Final = 100

HINT: Final = "   --json for the records, --curl for the calls"

Form = Literal["", "json", "csv", "ndjson"]  # "" is for people


def run(
    gateway: GatewayClient,
    words: Sequence[str],
    *,
    form: Form,
    deadline_seconds: float | None,
    max_age_seconds: float | None,
    curl: bool,
) -> int:
    """Returns 0 when all tasks succeeded, else 1. Raises ``Refused``, ``NoGateway`` and click's ``UsageError``."""
    client = Nearfetch(gateway.url, gateway.key, timeout=0)  # a person wants to hear at once that no gateway answers
    try:
        return _run(
            client,
            asked_for(words),
            form=form,
            deadline_seconds=deadline_seconds,
            max_age_seconds=max_age_seconds,
            curl=curl,
        )
    except nearfetch_client.Unavailable as error:
        raise NoGateway(f"{str(error).rstrip('.')}. Is it running? (scripts/up, or --url)") from error
    except nearfetch_client.Refused as error:
        raise Refused(error.status, error.problem) from error


def _run(
    client: Nearfetch,
    asked: Sequence[tuple[str, dict[str, str]]],
    *,
    form: Form,
    deadline_seconds: float | None,
    max_age_seconds: float | None,
    curl: bool,
) -> int:
    if form == "csv" and len({source for source, _ in asked}) > 1:
        raise click.UsageError(
            "a CSV has one header, so --csv takes one source, once or several times; --ndjson takes several sources"
        )
    if curl and form in ("csv", "ndjson"):
        if deadline_seconds is not None:
            raise click.UsageError("calls that return only records can't set a deadline; the gateway does")
        show_records_calls(client, asked, form, max_age_seconds)
        return 0
    wanted = [typed(_described(client, source) if params else {}, source, params) for source, params in asked]
    if curl:
        body: dict[str, Any] = {"sources": wanted}
        if deadline_seconds is not None:
            body["deadline"] = deadline_seconds
        if max_age_seconds is not None:
            body["max_age"] = max_age_seconds
        show_calls(client, body)
        return 0
    began = time.monotonic()
    request = client.submit(*wanted, max_age=max_age_seconds or 0.0, deadline=deadline_seconds)
    client.timeout = GOES_ON_SECONDS
    to_stderr = form in ("csv", "ndjson")
    if form != "json":
        regions = {task["region"] for task in request.tasks}
        counts = f"{counted(len(request.tasks), 'task')}, {counted(len(regions), 'region')}"
        say(f"request {request.id}   {counts}", err=to_stderr)
    results, texts = [], []
    widths = (max(len(task["source"]) for task in request.tasks), max(len(task["region"]) for task in request.tasks))
    for result in request.results(progress=False):
        results.append(result.raw)
        if form == "csv" and result.ok:
            texts.append(result.text)
        elif form == "ndjson":
            show_lines(result.text)
        if form == "json":
            say_json(result.text)  # the text as it arrived, since it keeps the spelling of numbers
        else:
            say(printable(line(result.raw, *widths)), err=to_stderr)
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


def typed(described: Mapping[str, Any], source: str, params: dict[str, str]) -> Any:
    """A source as a request's body names it, with each param in the JSON type that the catalogue describes."""
    if not params:
        return source
    types = {name: spec.get("type", "str") for name, spec in described.get("params", {}).items()}
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


def _described(client: Nearfetch, source: str) -> dict[str, Any]:
    """What the catalogue has of a source; nothing if it is not there."""
    try:
        found: dict[str, Any] = client.call("GET", f"/v1/sources/{urllib.parse.quote(source, safe='')}").json()
    except nearfetch_client.Refused:
        return {}
    return found


def line(result: Mapping[str, Any], source_width: int, region_width: int) -> str:
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


def last_line(results: Sequence[Mapping[str, Any]], seconds: float) -> str:
    """The last line: how many succeeded, in what time, and how many bytes the regions saved."""
    succeeded = [result for result in results if result["status"] == "succeeded"]
    received, spared, wire = (sum(result["bytes"][of] for result in results) for of in ("received", "spared", "wire"))
    return f"{len(succeeded)} of {len(results)} in {duration(seconds)}; {less(received, spared, wire)}."


def show_lines(result: str) -> None:
    """Prints the records of a result's JSON, one on each line, spelt as they are there."""
    from web.api import rows  # noqa: PLC0415

    click.echo(printable_json(rows.ndjson(rows.records_of(result.encode())).decode()), nl=False)


def show_csv(client: Nearfetch, source: str, results: Sequence[str]) -> None:
    """Prints the records of results' JSON as one CSV, with the columns in the order of the source's definition.

    On a terminal, control characters are escaped.
    """
    from web.api import rows  # noqa: PLC0415

    columns = _described(client, source).get("schema", {}).get("properties", {})
    records = rows.joined(rows.records_of(result.encode()) for result in results)
    table = rows.csv(records, columns)
    click.echo(shown(table.decode().replace("\r\n", "\n")) if sys.stdout.isatty() else table, nl=False)


def show_records_calls(
    client: Nearfetch, asked: Sequence[tuple[str, dict[str, str]]], form: Form, max_age_seconds: float | None
) -> None:
    """Prints, for each source, the curl command of a call that returns only its records."""
    accept = {"csv": "text/csv", "ndjson": "application/x-ndjson"}[form]
    age = {} if max_age_seconds is None else {"max_age": f"{max_age_seconds:.10g}"}
    for source, params in asked:
        query = f"?{urllib.parse.urlencode({**params, **age})}" if params or age else ""
        url = shlex.quote(f"{client.url}/v1/sources/{urllib.parse.quote(source)}/records{query}")
        click.echo(f"curl -sf {url} -H 'Accept: {accept}'")


def show_calls(client: Nearfetch, body: dict[str, Any]) -> None:
    """Prints the two calls as curl commands."""
    content = shlex.quote(printable_json(json.dumps(body, ensure_ascii=False)))
    click.echo(f"curl -s {client.url}/v1/requests -H 'Content-Type: application/json' -d {content}")
    say(f"curl -sN {client.url}/v1/requests/ID/events   # ID is the id in the answer")
