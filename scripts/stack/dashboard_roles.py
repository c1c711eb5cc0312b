"""Who may do what at a region's rq-dashboard: two roles, a lock against guessing, and what an operator's two buttons do.

    Admission    who asks: a ``reader``, who can only look, or an ``operator``; everybody else is refused
    requeue      asks again what a job asked, by a new request to a gateway: the task itself has ended, and ends once
    delete       deletes a job that does not run

A browser sends a password along with whatever page makes it send a request. So a POST counts only if it comes from the dashboard's
own pages.
"""

import hmac
import re
import threading
import time
from collections import OrderedDict
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import flask
import msgspec
import redis
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from regions import logs
from regions.settings import Dashboard
from scripts.stack.gateway_client import GatewayClient, NoGateway, Refused
from web.http.quota import network_of

Role = Literal["reader", "operator"]
REQUEUE: Final = "rq_dashboard.requeue_job_view"
DELETE: Final = "rq_dashboard.delete_job_view"
GUESSES: Final = 10  # wrong passwords of an address, then it has to wait
LOCKED_SECONDS: Final = 60.0  # doubled by each further wrong password
LOCKED_MAX_SECONDS: Final = 900.0
ADDRESSES_MAX: Final = 10_000
ENDED: Final = (JobStatus.FAILED, JobStatus.FINISHED, JobStatus.CANCELED, JobStatus.STOPPED)
# A job's description as bridge.enqueue writes it: source, params as JSON, request.
_DESCRIPTION: Final = re.compile(r"([a-z0-9_.-]+) (\{.*\})  request ([0-9A-Z]+)", re.DOTALL)

_params: Final = msgspec.json.Decoder(dict[str, Any])


class Gateway(NamedTuple):
    """The gateway for an operator's requests: its address for this process, and the one for people's browsers, if that is another."""

    asked: str = ""
    shown: str = ""


class Guesses:
    """Wrong passwords by address, or by network. An address that sent many has to wait, even for the right one."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()  # count, when the address may try again
        self._lock = threading.Lock()

    def locked_seconds(self, address: str) -> float:
        """For how long an address has to wait; 0 if it need not."""
        with self._lock:
            _, until = self._known.get(address, (0, 0.0))
        return max(0.0, until - time.monotonic())

    def wrong(self, address: str) -> None:
        """Notes a wrong password."""
        now = time.monotonic()
        with self._lock:
            count, until = self._known.pop(address, (0, now))
            count = 1 if now - until > LOCKED_MAX_SECONDS else count + 1
            seconds = (
                0.0 if count < GUESSES else min(LOCKED_MAX_SECONDS, LOCKED_SECONDS * 2 ** min(count - GUESSES, 10))
            )
            self._known[address] = (count, now + seconds)
            if len(self._known) > ADDRESSES_MAX:
                self._known.popitem(last=False)

    def right(self, address: str) -> None:
        """Forgets an address whose password was right."""
        with self._lock:
            self._known.pop(address, None)


class Admission:
    """Knows the roles by their names and passwords."""

    def __init__(self, dashboard: Dashboard) -> None:
        self._roles: list[tuple[Role, bytes, bytes]] = [
            ("reader", dashboard.user.encode(), dashboard.password.encode())
        ]
        if dashboard.operator_password:
            self._roles.append(("operator", dashboard.operator_user.encode(), dashboard.operator_password.encode()))
        self._guesses = Guesses()

    def role(self, request: flask.Request) -> tuple[Role | None, float]:
        """The role of the caller, or None if it is unknown; and the seconds that its address has to wait."""
        address = network_of(request.remote_addr or "")
        given = request.authorization
        if given is None:  # a browser's first try: nobody has guessed
            return None, self._guesses.locked_seconds(address)
        if seconds := self._guesses.locked_seconds(address):
            return None, seconds
        user, password = (given.username or "", given.password or "") if given.type == "basic" else ("", "")
        found: Role | None = None
        for role, right_user, right_password in self._roles:  # each is compared, so that the time tells nothing
            is_user = hmac.compare_digest(user.encode(), right_user)
            if hmac.compare_digest(password.encode(), right_password) and is_user:
                found = role
        if found is None:
            self._guesses.wrong(address)
            return None, self._guesses.locked_seconds(address)
        self._guesses.right(address)
        return found, 0.0


def is_own(request: flask.Request) -> bool:
    """Whether a POST comes from a page of this dashboard. Browsers say where one comes from, and no page can make them lie."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin")
    if origin is not None:
        return urlsplit(origin).netloc == request.host
    # No browser that is new enough, or a program: this header no form can send, and no page of another site may.
    return request.headers.get("X-Requested-With") == "XMLHttpRequest"


def requeue(client: redis.Redis, region: str, job_id: str, gateway: Gateway) -> tuple[dict[str, Any], int]:
    """Posts the request of a failed job again. Returns the answer's JSON and status.

    The job leaves RQ's list of failed ones. Its record stays as long as before, since RabbitMQ may deliver its message again.
    """
    try:
        job = Job.fetch(job_id, connection=client, serializer=JSONSerializer)
    except NoSuchJobError:
        return _refused("There is no such job any more.", 404)
    status = job.get_status(refresh=False)
    if status not in ENDED:
        return _refused(f"This job is {status.value}: it has not ended, and need not be asked again.", 409)
    found = _DESCRIPTION.fullmatch(job.description or "")
    try:
        params = _params.decode(found[2]) if found is not None else None
    except msgspec.DecodeError:
        params = None
    if found is None or params is None:
        return _refused("Its params were too long to be kept with the job. Ask its source again: nearfetch fetch.", 409)
    if not gateway.asked:
        return _refused("No gateway is named to ask: set dashboard.gateway_url of this region.", 409)
    document = {
        "sources": [{"source": found[1], "params": params}],
        "attrs": {"retry_of": {"request": found[3], "task": job.id}},
    }
    try:
        made = GatewayClient.found(gateway.asked, None).post("/v1/requests", document)
    except NoGateway as error:
        return _refused(str(error), 503)
    except Refused as error:
        return _refused(f"The gateway refuses: {error}", 502)
    FailedJobRegistry(region, connection=client, serializer=JSONSerializer).remove(job)
    logs.get("dashboard").info("asked again", region=region, task=job.id, source=found[1], request=made["id"])
    link = f"{(gateway.shown or gateway.asked).rstrip('/')}/requests/{made['id']}"
    return {
        "status": "OK",
        "message": f"Asked again as request {made['id']}.",
        "request": made["id"],
        "link": link,
    }, 200


def delete(client: redis.Redis, region: str, job_id: str) -> tuple[dict[str, Any], int]:
    """Deletes a job; the answer's JSON and status. One that runs is not deleted: its result would be thrown away."""
    try:
        job = Job.fetch(job_id, connection=client, serializer=JSONSerializer)
    except NoSuchJobError:
        return _refused("There is no such job any more.", 404)
    status = job.get_status(refresh=False)
    if status == JobStatus.STARTED:
        return _refused("It runs: cancel its request instead (DELETE /v1/requests/ID).", 409)
    job.delete()
    logs.get("dashboard").info("deleted a job", region=region, task=job.id, status=status.value)
    message = "Deleted." if status in ENDED else "Deleted. Its task ends as expired, a few seconds after its deadline."
    return {"status": "OK", "message": message}, 200


def _refused(message: str, status: int) -> tuple[dict[str, Any], int]:
    return {"status": "ERROR", "message": message}, status


# Reads of RQ's keys. The pages also remove the records of workers and executions that are gone; they never change jobs.
READER_ACL: Final = (
    "~rq:* +@read -@dangerous +@connection -client +client|setname +client|setinfo +client|list +info"
    " +multi +exec +discard"  # a worker's executions are read in one MULTI
    " (+srem ~rq:workers* ~rq:worker:*:executions)"
)
# What deleting one job takes beside that.
OPERATOR_ACL: Final = f"{READER_ACL} (+del +zrem +zremrangebyscore +lrem ~rq:*)"

# What no role may do is hidden, and a reader sees no button at all.
_FOR_ALL: Final = "#compact-btn, #requeue-all-btn, #empty-btn"
_FOR_READERS: Final = '#requeue-job-btn, #delete-job-btn, [data-role="requeue-job-btn"], [data-role="delete-job-btn"]'
# Shows what came of a button: rq-dashboard itself shows nothing.
_TOLD: Final = """
<style>#told { position: sticky; top: 0; margin: 0; padding: .5rem 1rem; background: #fff3cd; z-index: 9 } #told:empty { display: none }</style>
"""
SCRIPT: Final = """
(function ($) {
    $('body').prepend('<p id="told" role="status"></p>');
    $(document).ajaxComplete(function (_, answer, asked) {
        if (asked.type !== 'POST') return;
        var said = answer.responseJSON || {message: 'The dashboard answered ' + answer.status + '.'};
        var told = $('#told').text(said.message || '');
        if (said.link) told.append(' ', $('<a>').attr('href', said.link).text('Its result'));
    });
})($);
"""


def style(role: Role | None) -> str:
    """The style of a role's pages."""
    hidden = _FOR_ALL if role == "operator" else f"{_FOR_ALL}, {_FOR_READERS}"
    return f"<style>{hidden} {{ display: none !important }}</style>{_TOLD}"
