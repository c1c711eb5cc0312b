"""A region's rq-dashboard: behind passwords, readable as JSON, and able to change a job only for an operator.

rq-dashboard itself ensures none of this. It has no CSRF guard, requeues jobs on a GET, uses pickle by default, and makes a
Redis client for each request. So we give it one client, whose Redis user may only read (``dashboard_roles.READER_ACL``), and let
only GET and HEAD pass. The buttons of an operator are handled here, not by rq-dashboard, with another user's client.
"""

import contextlib
import functools
import math
import signal
import socket
import threading
from pathlib import Path
from typing import Any, Final

import flask
import jinja2
import redis
import rq_dashboard
from cheroot import wsgi
from rq import Worker
from rq.exceptions import NoSuchJobError
from rq.serializers import JSONSerializer
from rq_dashboard import web as rq_web

from regions import connect, logs
from regions.faults import Fault, Faults
from regions.settings import Region, Settings
from scripts.stack import dashboard_roles

THREADS: Final = 8
BODY_BYTES_MAX: Final = 65_536
HEADER_BYTES_MAX: Final = 65_536
TIMEOUT_SECONDS: Final = 10
STOP_SECONDS: Final = 3
IDLE_SECONDS: Final = 5.0  # between two looks for connections that send nothing
NO_GATEWAY: Final = dashboard_roles.Gateway()
_CLIENT: Final = "NEARFETCH_REDIS"
_TEMPLATES: Final = Path(rq_dashboard.__file__).parent / "templates"

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval'; img-src 'self' data:; frame-ancestors 'none';"
        " form-action 'none'; base-uri 'none'; object-src 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _Workers(Worker):
    """Workers whose jobs are JSON. Otherwise the pages would unpickle the job that a busy worker runs."""

    @classmethod
    def all(cls, *arguments: Any, **options: Any) -> Any:
        """Like RQ's."""
        return super().all(*arguments, **{**options, "serializer": JSONSerializer})


class _Server(wsgi.Server):
    """A server that writes to our log, and wakes seldom while nobody asks."""

    expiration_interval = IDLE_SECONDS
    _connections: Any  # cheroot's loop

    def stop(self) -> None:
        """cheroot's, which alone would wait for as long as the server is idle."""
        self._connections._stop_requested = True  # noqa: SLF001 - before the server wakes
        with contextlib.suppress(OSError):
            socket.create_connection(self.bind_addr, TIMEOUT_SECONDS).close()
        super().stop()

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        """Called by cheroot; ``level`` is one of the standard library's logging levels."""
        logs.get("dashboard").log(level, msg, exc_info=traceback or None)


def application(
    client: redis.Redis,
    region: Region,
    operator: redis.Redis | None = None,
    gateway: dashboard_roles.Gateway = NO_GATEWAY,
) -> flask.Flask:
    """A region's dashboard as a WSGI application; the user of ``client`` may only read, that of ``operator`` delete jobs, too.

    ``gateway``: the one that is asked again what a failed job asked.
    """
    rq_web.config.serializer = JSONSerializer
    rq_web.Worker = _Workers
    # rq-dashboard opens a connection for each request by this function. So it never sees a URL with a password.
    rq_web.from_url = lambda *_arguments, **_options: (None, flask.current_app.config[_CLIENT])

    app = flask.Flask(__name__, static_folder=None)
    app.config |= {
        _CLIENT: client,
        "RQ_DASHBOARD_REDIS_URL": (connect.without_password(region.dashboard.redis_url),),
        "RQ_DASHBOARD_DISABLE_DELETE": False,  # the pages have the button, which only operators see
    }
    app.jinja_loader = jinja2.FunctionLoader(functools.partial(_template, region.name))
    admission = dashboard_roles.Admission(region.dashboard)
    app.before_request(functools.partial(_admit, region, admission))
    app.before_request(functools.partial(_act, region, operator, gateway))
    app.after_request(_harden)
    app.context_processor(lambda: {"nearfetch_style": dashboard_roles.style(flask.g.get("role"))})
    app.register_error_handler(redis.exceptions.RedisError, _redis_failed)
    app.register_error_handler(NoSuchJobError, lambda _error: ("No such job.\n", 404))
    app.register_blueprint(rq_web.blueprint)
    return app


def run(settings: Settings, region: str) -> int:
    """Serves a region's dashboard until SIGTERM or SIGINT; returns the exit code. Raises ``Faults`` when it must not start."""
    one = settings.one(region)
    _refuse_unsafe(one)
    log = logs.get("dashboard")
    # Not by sigtimedwait: CPython's returns what no signal has filled after a pause (SIGSTOP) that lasts beyond its time-out.
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    client = connect.open_redis(one.dashboard.redis_url, name=f"dashboard-{region}")
    _warn_of_writer(client, region, log)
    operator = None
    if one.dashboard.operator_password:
        operator = connect.open_redis(one.dashboard.operator_redis_url, name=f"dashboard-operator-{region}")
    public = settings.gateway.public_url
    gateway = dashboard_roles.Gateway(one.dashboard.gateway_url or public, public)
    address = (one.dashboard.host, one.dashboard.port)
    server = _Server(
        address,
        application(client, one, operator, gateway),
        numthreads=THREADS,
        timeout=TIMEOUT_SECONDS,
        shutdown_timeout=STOP_SECONDS,
    )
    server.max_request_body_size = BODY_BYTES_MAX
    server.max_request_header_size = HEADER_BYTES_MAX
    try:
        server.prepare()
    except OSError as error:
        log.error("can't listen", region=region, address=f"{address[0]}:{address[1]}", reason=str(error))
        return 1
    ended = threading.Event()

    def serve() -> None:
        try:
            server.serve()
        finally:
            ended.set()
            stopped.set()

    threading.Thread(target=serve, name="serve", daemon=True).start()
    log.info("serving", region=region, url=f"http://{address[0]}:{address[1]}/")
    stopped.wait()
    was_serving = not ended.is_set()
    server.stop()
    client.close()
    if operator is not None:
        operator.close()
    log.info("stopped", region=region)
    return 0 if was_serving else 1


def _refuse_unsafe(region: Region) -> None:
    missing = {
        "password": "expected a password, since anybody who opens the page sees every job, found none",
        "redis_url": "expected the URL of a Redis user that can't change jobs, found none",
    }
    faults = [
        Fault(f"{region.name}.toml", None, f"dashboard.{key}", message)
        for key, message in missing.items()
        if not getattr(region.dashboard, key)
    ]
    of_operator = region.dashboard.operator_password, region.dashboard.operator_redis_url
    if any(of_operator) and not all(of_operator):
        message = "expected both operator_password and operator_redis_url, or neither, found one"
        faults.append(Fault(f"{region.name}.toml", None, "dashboard.operator_password", message))
    if all(of_operator) and region.dashboard.operator_user == region.dashboard.user:
        message = f'expected another name than that of the user who can only look, found "{region.dashboard.user}"'
        faults.append(Fault(f"{region.name}.toml", None, "dashboard.operator_user", message))
    if faults:
        raise Faults(faults)


def _warn_of_writer(client: redis.Redis, region: str, log: Any) -> None:
    """Warns when the user in the URL may write. Then nothing but this process protects the jobs."""
    try:
        client.delete("rq:nearfetch-may-this-user-write")
    except redis.exceptions.NoPermissionError:
        return
    except redis.exceptions.RedisError as error:
        log.warning("the region's Redis does not answer yet", region=region, reason=str(error))
        return
    log.warning("the user in dashboard.redis_url may change jobs", region=region, expected=dashboard_roles.READER_ACL)


def _admit(region: Region, admission: dashboard_roles.Admission) -> flask.Response | None:
    """None for a request that may pass. The password is checked first, so that strangers do not learn what exists."""
    role, seconds = admission.role(flask.request)
    if role is None and seconds:
        wait = {"Retry-After": str(math.ceil(seconds))}
        return flask.Response("Too many wrong passwords came from your address.\n", 429, wait, mimetype="text/plain")
    if role is None:
        realm = {"WWW-Authenticate": f'Basic realm="rq-dashboard {region.name}", charset="UTF-8"'}
        return flask.Response("Send a user name and a password.\n", 401, realm, mimetype="text/plain")
    flask.g.role = role
    may_post = role == "operator" and flask.request.endpoint in (dashboard_roles.REQUEUE, dashboard_roles.DELETE)
    is_post = flask.request.method == "POST" and may_post
    if not is_post and (
        flask.request.method not in ("GET", "HEAD") or flask.request.endpoint == "rq_dashboard.requeue_all"
    ):
        said = "This dashboard is read-only for you.\n" if role == "reader" else "This is not for the dashboard.\n"
        return flask.Response(said, 405, {"Allow": "GET, HEAD"}, mimetype="text/plain")
    if (flask.request.view_args or {}).get("instance_number", 0) != 0:
        return flask.Response("This dashboard shows one Redis only, number 0.\n", 404, mimetype="text/plain")
    return None


def _act(region: Region, operator: redis.Redis | None, gateway: dashboard_roles.Gateway) -> flask.Response | None:
    """An operator's buttons, in the place of rq-dashboard's own views; None for all other requests."""
    if flask.request.method != "POST":
        return None
    if operator is None:
        return flask.Response("There is no operator here.\n", 405, {"Allow": "GET, HEAD"}, mimetype="text/plain")
    if not dashboard_roles.is_own(flask.request):
        logs.get("dashboard").warning("a page of another site sent a request", region=region.name)
        return flask.Response("Only this dashboard's own pages may ask for that.\n", 403, mimetype="text/plain")
    job = str((flask.request.view_args or {}).get("job_id", ""))
    if flask.request.endpoint == dashboard_roles.REQUEUE:
        answer, status = dashboard_roles.requeue(operator, region.name, job, gateway)
    else:
        answer, status = dashboard_roles.delete(operator, region.name, job)
    response = flask.jsonify(answer)
    response.status_code = status
    return response


def _harden(response: flask.Response) -> flask.Response:
    response.headers.update(_HEADERS)
    return response


def _redis_failed(error: redis.exceptions.RedisError) -> tuple[str, int]:
    logs.get("dashboard").warning("a page failed", path=flask.request.path, reason=str(error))
    return "The region's Redis does not answer as it should; see this dashboard's log.\n", 503


def _template(region: str, name: str) -> str | None:
    """One of rq-dashboard's own templates, corrected.

    Descriptions and tracebacks hold text from clients and fetched pages, and two of the pages write them out as HTML.
    """
    path = _TEMPLATES / name
    if not path.is_relative_to(_TEMPLATES) or not path.is_file():
        return None
    source = path.read_text(encoding="utf-8")
    if path.name in ("job.html", "workers.html"):
        source = source.replace("<%=", "<%-")  # "<%-" writes escaped in Underscore's templates
    if path.name == "base.html":
        source = source.replace("</head>", "{{ nearfetch_style|safe }}</head>")
        source = source.replace("{% block content_scripts %}", f"{dashboard_roles.SCRIPT}{{% block content_scripts %}}")
        source = source.replace("<title>RQ dashboard</title>", f"<title>{region}: RQ dashboard</title>")
        source = source.replace("url_for('static', filename='favicon.ico')", "url_for('rq_dashboard.favicon')")
    return source
