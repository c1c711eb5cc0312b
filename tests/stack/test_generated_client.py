"""A client that a generator makes of the OpenAPI document works. Skipped without the generator, which nothing else needs.

pip install openapi-python-client==0.29.1    # in a virtual environment of its own; its command has to be in PATH
"""

import json
import shutil
import subprocess
import sys

import pytest

from tests.wire import ask

GENERATOR = shutil.which("openapi-python-client")
LIMIT_SECONDS = 120.0

USES_IT = """
import json, sys, time
from made import Client
from made.api.gateway import readyz
from made.api.requests import cancel_request, get_request, get_task, list_requests, submit, where
from made.api.sources import get_records, get_source, list_sources
from made.models import Ask, AskParams, GetRecordsSourceParams, New

client = Client(sys.argv[1], raise_on_unexpected_status=True)
catalogue = {source.id: source for source in list_sources.sync(client=client).sources}
books = Ask("books.list", AskParams.from_dict({"category": "poetry_23"}))
taken = submit.sync_detailed(client=client, body=New(["ecb.rates", books]), idempotency_key="once")
again = submit.sync_detailed(client=client, body=New(["ecb.rates", books]), idempotency_key="once")
request = get_request.sync(taken.parsed.id, client=client, wait=60)
at_once = submit.sync_detailed(client=client, body=New(["quakes.day"]), prefer="wait=30")
params = GetRecordsSourceParams.from_dict({"category": "travel_2"})
records = get_records.sync("books.list", client=client, source_params=params)
wrong = submit.sync_detailed(client=client, body=New(["no.such"]))


def listed():
    # The history has it some seconds after its end.
    return request.id in [one.id for one in list_requests.sync(client=client).requests]


until = time.monotonic() + 60
while not listed() and time.monotonic() < until:
    time.sleep(0.1)
print(json.dumps({
    "ready": readyz.sync(client=client).status,
    "title": catalogue["ecb.rates"].title == get_source.sync("ecb.rates", client=client).title,
    "codes": [taken.status_code, again.status_code, at_once.status_code, wrong.status_code],
    "same": again.parsed.id == taken.parsed.id,
    "results": {result.source: [result.status, len(result.records)] for result in request.results},
    "where": where.sync(request.tasks[0].id, client=client).hops[-1].hop,
    "task": get_task.sync(request.id, request.tasks[0].id, client=client).status,
    "listed": listed(),
    "cancelled": cancel_request.sync(request.id, client=client).done,
    "records": [records.status, records.count],
    "problem": [wrong.parsed.type_, wrong.parsed.errors[0].pointer],
}))
"""


@pytest.mark.skipif(GENERATOR is None, reason="openapi-python-client is not installed")
def test_a_generated_client_works(stack, tmp_path):
    (tmp_path / "openapi.json").write_bytes(ask(stack.port, "GET", "/openapi.json").body)
    made = ["generate", "--path", "openapi.json", "--output-path", "made", "--meta", "none"]
    subprocess.run([GENERATOR, *made], cwd=tmp_path, check=True, capture_output=True, timeout=LIMIT_SECONDS)
    command = [sys.executable, "-c", USES_IT, stack.url]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    results = found.pop("results")
    assert {source: status for source, (status, _) in results.items()} == {
        "ecb.rates": "succeeded", "books.list": "succeeded",
    }  # fmt: skip
    assert all(count > 10 for _, count in results.values())
    assert found.pop("records")[0] == "succeeded"
    assert found == {
        "ready": "ready", "title": True, "codes": [202, 202, 200, 422], "same": True, "where": "delivered", "task": "succeeded",
        "listed": True, "cancelled": True, "problem": ["/problems/invalid", "/sources/0"],
    }  # fmt: skip
