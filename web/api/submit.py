"""Makes a ``New`` request of a body or query, or a problem document that names all faults at once."""

import itertools
import json
import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct, structs

from jobs.definition.catalog import Catalog, Entry
from jobs.definition.hosts import HostRefused
from jobs.definition.model import BadParams
from regions.faults import nearest
from regions.settings import Limits
from web.api import query
from web.http.problems import Problem, invalid, pointer
from web.hub import ids, webhooks
from web.hub.new_request import New, NewTask
from web.hub.takeover import Moved
from web.hub.webhooks import Webhook

DEPTH_MAX: Final = 64
SHOWN_MAX: Final = 100  # unknown members that are named one by one
NEAREST_MAX: Final = 10  # faults of a body that may name what was meant: to look for it among 500 sources takes 20 ms
MEMBERS: Final = ("sources", "deadline", "max_age", "attrs", "webhook")
TASK_MEMBERS: Final = ("source", "params")
WEBHOOK_MEMBERS: Final = ("url", "secret")
QUERY_OWN: Final = ("wait", "max_age", "deadline")
AGE: Final = re.compile(r"\d+(\.\d*)?", re.ASCII)
AGE_MAX_SECONDS: Final = 2.0**31  # caches take this for infinite (RFC 9111, 1.2.2)

DIGITS_MAX: Final = 1_000  # of a whole number; Python refuses some more
CODINGS: Final = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}  # how they begin
# What Python's messages about JSON that can't be read begin with, and what they mean.
EXPECTED: Final = {
    "Expecting value": "a value",
    "Expecting property name": "a member's name in double quotes",
    "Illegal trailing comma": "a value or a member, not a comma before the end,",
    "Expecting ':'": "a colon",
    "Expecting ','": "a comma, or the end of the list or object,",
    "Extra data": "the end of the body",
    "Unterminated string": "the end of the text that begins",
    "Invalid control character": "an escape in place of a control character",
    "Invalid \\": "an escape that JSON has",
    "Unexpected UTF-8 BOM": "JSON without a byte order mark",
}

Errors = list[tuple[str, str]]  # (pointer, detail)


def at_home(entry: Entry) -> tuple[str, Moved | None]:
    """The region of a source, for a gateway that moves no tasks."""
    return entry.region, None


class Rules(Struct, frozen=True):
    """The sources, limits and regions by which a request is checked. Sources and regions change while the gateway runs.

    ``route`` says which region is asked for a source, and why if it is not the source's own. ``plain_http``: a webhook may have
    an http address beyond this machine.
    """

    catalog: Catalog
    limits: Limits
    regions: Container[str]
    route: Callable[[Entry], tuple[str, Moved | None]] = at_home
    plain_http: bool = False


def is_json_type(content_type: str) -> bool:
    """Whether a Content-Type means JSON."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def charset_of(content_type: str) -> str:
    """The charset that a Content-Type names, in lower case; "" if it names none."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower().replace("utf8", "utf-8")
    return ""


def decode(body: bytes) -> Any:
    """The body's JSON. Raises ``Problem`` (400) if it is not JSON, repeats a member, or is nested too deeply."""
    if not body.strip():
        raise Problem("not-json", "expected JSON, found an empty body")
    try:
        document = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_members,
            parse_constant=_no_constant,
            parse_float=_number,
            parse_int=_whole,
        )
    except UnicodeDecodeError as error:
        found = _encoded(body) or f"expected UTF-8, found byte 0x{body[error.start]:02x} at {error.start}"
        raise Problem("not-json", found) from error
    except json.JSONDecodeError as error:
        raise Problem("not-json", _encoded(body) or _where(error)) from error
    except RecursionError as error:
        raise Problem("not-json", f"expected at most {DEPTH_MAX} levels, found more") from error
    except ValueError as error:
        raise Problem("not-json", str(error)) from error
    # Few brackets can't nest deeply, and in UTF-8 only an escape can be half a surrogate pair.
    if b"\\u" in body or body.count(b"{") + body.count(b"[") > DEPTH_MAX:
        _check_values(document)
    return document


def validate(body: bytes, rules: Rules, *, sync: bool) -> New:
    """A request from its body. Raises ``Problem``: 400 if it is not JSON, otherwise 422 with all faults."""
    document = decode(body)
    limits = rules.limits
    errors: Errors = []
    if not isinstance(document, dict):
        raise invalid([("", f"expected an object, found {_shown(document)}")])
    _unknown("", document, MEMBERS, errors)
    tasks = _tasks(document, rules, errors)
    deadline = _deadline(document.get("deadline", limits.deadline_seconds), limits, errors)
    max_age = document.get("max_age", 0)
    if not _is_number(max_age) or max_age < 0:
        errors.append(("/max_age", f"expected a number of seconds from 0, found {_shown(max_age)}"))
    attrs = document.get("attrs", {})
    if not isinstance(attrs, dict):
        errors.append(("/attrs", f"expected an object, found {_shown(attrs)}"))
    written = _as_it_came(body, "attrs")
    if len(written) > limits.attrs_bytes_max:
        errors.append(("/attrs", f"expected {limits.attrs_bytes_max} bytes of JSON at most, found {len(written)}"))
    webhook = _webhook(document["webhook"], rules, errors) if "webhook" in document else None
    if errors:
        raise invalid(errors)
    request = ids.new()
    return New(
        id=request,
        tasks=_numbered(request, tasks),
        deadline_ms=int(deadline * 1000),
        webhook=webhook,
        attrs=written,
        max_age=float(min(max_age, AGE_MAX_SECONDS)),
        sync=sync and len(tasks) == 1,
    )


def from_query(
    source: str, pairs: Sequence[tuple[str, str]], rules: Rules, faults: Sequence[tuple[str, str]] = ()
) -> New:
    """A synchronous request for one source from a query, of which ``faults`` are known.

    Raises ``Problem``: 404 for an unknown source, otherwise with all faults: 400 if there were some before, else 422.
    """
    if rules.catalog.get(source) is None:
        raise unknown_source(source, rules.catalog)
    errors: Errors = list(faults)
    params: dict[str, object] = {}
    own: dict[str, str] = {}
    for name, text in pairs:
        if name in params or (name in QUERY_OWN and name in own):
            errors.append((pointer(name), "expected it once, found it twice"))
        elif name in QUERY_OWN:
            own[name] = text
        else:
            params[name] = text
    max_age = own.get("max_age", "0")
    if not AGE.fullmatch(max_age):
        errors.append(("/max_age", f"expected a number of seconds from 0, found {_shown(max_age)}"))
    most = rules.limits.deadline_max_seconds
    deadline = query.seconds(own["deadline"]) if "deadline" in own else rules.limits.deadline_seconds
    if deadline is None or not 0 < deadline <= most:
        errors.append(("/deadline", f"expected seconds above 0 and up to {most:g}, found {_shown(own['deadline'])}"))
    task = _task(source, params, rules, _At(), errors, text=True)
    if errors or task is None or deadline is None:
        raise query.bad(errors) if faults else invalid(errors)
    request, deadline_ms = ids.new(), max(1, int(deadline * 1000))
    return New(
        id=request,
        tasks=_numbered(request, [task]),
        deadline_ms=deadline_ms,
        max_age=min(float(max_age), AGE_MAX_SECONDS),
        sync=True,
    )


def unknown_source(source: str, catalog: Catalog) -> Problem:
    """404, with the nearest known source."""
    return Problem("not-found", _no_such_source(source, catalog, []))


def _tasks(document: Mapping[str, Any], rules: Rules, errors: Errors) -> list[NewTask]:
    sources = document.get("sources")
    if not isinstance(sources, list) or not sources:
        found = "nothing" if "sources" not in document else _shown(sources)
        errors.append(("/sources", f"expected a list of one source or more, found {found}"))
        return []
    if len(sources) > rules.limits.tasks_max:
        errors.append(("/sources", f"expected {rules.limits.tasks_max} sources at most, found {len(sources)}"))
        return []
    tasks = []
    for index, one in enumerate(sources):
        task = _one(one, index, rules, errors)
        if task is not None:
            tasks.append(task)
    return tasks


def _one(one: Any, index: int, rules: Rules, errors: Errors) -> NewTask | None:
    where = pointer("sources", index)
    if isinstance(one, str):
        return _task(one, {}, rules, _At(where, f"{where}/params"), errors)
    if not isinstance(one, dict):
        errors.append((where, f'expected a source\'s id or {{"source", "params"}}, found {_shown(one)}'))
        return None
    _unknown(where, one, TASK_MEMBERS, errors)
    source, params = one.get("source"), one.get("params", {})
    if not isinstance(params, dict):
        errors.append((f"{where}/params", f"expected an object, found {_shown(params)}"))
        params = None
    if not isinstance(source, str):
        found = "nothing" if "source" not in one else _shown(source)
        errors.append((f"{where}/source", f"expected a source's id, found {found}"))
        return None
    if params is None:
        return None
    return _task(source, params, rules, _At(f"{where}/source", f"{where}/params"), errors)


class _At(NamedTuple):
    """Pointers to where a task stands in a request's body; empty for a query."""

    source: str = ""
    params: str = ""


def _task(
    source: str, params: Mapping[str, object], rules: Rules, at: _At, errors: Errors, *, text: bool = False
) -> NewTask | None:
    """A task, if the source is known and the params fit; otherwise None, with the reasons added to ``errors``."""
    entry = rules.catalog.get(source)
    if entry is None:
        errors.append((at.source, _no_such_source(source, rules.catalog, errors)))
        return None
    definition = entry.definition
    if definition is None:
        errors.append((at.source, f"the definition of {source} is broken: {entry.faults[0]}"))
        return None
    if entry.region not in rules.regions:
        errors.append((at.source, f"{source} is in a region that is not set up here: {entry.region}"))
        return None
    try:
        bound = definition.bind(params, text=text, chars_max=rules.limits.text_chars_max)
        url = definition.expand(bound)
        host = definition.ask.origin(url)
    except BadParams as bad:
        errors += [(at.params + pointer(name), detail) for name, detail in bad.faults]
        return None
    except HostRefused as error:
        errors.append((at.params + (pointer(error.param) if error.param else ""), str(error)))
        return None
    region, moved = rules.route(entry)
    return NewTask(
        id="",
        source=source,
        region=region,
        params=bound,
        url=url,
        host=host,
        definition=definition.hash,
        moved=moved,
        may_move=len(definition.regions(entry.region)) > 1,
    )


def _numbered(request: str, tasks: Sequence[NewTask]) -> list[NewTask]:
    """The tasks with their ids."""
    return [structs.replace(task, id=ids.task(request, number)) for number, task in enumerate(tasks, 1)]


def _deadline(value: Any, limits: Limits, errors: Errors) -> float:
    most = limits.deadline_max_seconds
    if not _is_number(value) or not 0 < value <= most:
        errors.append(("/deadline", f"expected seconds above 0 and up to {most:g}, found {_shown(value)}"))
        return 0.0
    return float(value)


def _webhook(found: Any, rules: Rules, errors: Errors) -> Webhook | None:
    """A request's webhook; None if it is wrong. No message has its secret, or what may have been meant as one."""
    if not isinstance(found, dict):
        errors.append(("/webhook", 'expected {"url", "secret"}, found another value'))
        return None
    known = len(errors)
    _unknown("/webhook", found, WEBHOOK_MEMBERS, errors)
    url, secret = found.get("url"), found.get("secret")
    if not isinstance(url, str):
        errors.append(
            ("/webhook/url", "expected an https address, found " + ("nothing" if url is None else "another value"))
        )
    elif (wrong := webhooks.wrong_url(url, plain_http=rules.plain_http)) is not None:
        errors.append(("/webhook/url", f"expected {wrong}"))
    if not isinstance(secret, str) or not webhooks.is_secret(secret):
        errors.append(
            (
                "/webhook/secret",
                "expected whsec_ and 24 to 64 bytes in base64, found "
                + ("nothing" if secret is None else "another value"),
            )
        )
    return Webhook(url, secret) if len(errors) == known and isinstance(url, str) and isinstance(secret, str) else None


def _unknown(where: str, found: Mapping[str, Any], known: Sequence[str], errors: Errors) -> None:
    """Adds a fault for each unknown member."""
    names = [name for name in found if name not in known]
    for name in names[:SHOWN_MAX]:
        meant = nearest(name, known) if len(errors) < NEAREST_MAX else ""
        errors.append((where + pointer(name), f'unknown member "{name[:60]}"{meant}'))
    if len(names) > SHOWN_MAX:
        errors.append((where, f"{len(names) - SHOWN_MAX} more unknown members"))


def _no_such_source(source: str, catalog: Catalog, errors: Errors) -> str:
    """``errors``: those that were found before."""
    meant = nearest(source, [entry.id for entry in catalog.entries()]) if len(errors) < NEAREST_MAX else ""
    return f'there is no source "{source[:60]}"{meant}'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def _as_it_came(body: bytes, member: str) -> bytes:
    """A member's JSON, byte for byte: numbers in it keep their spelling."""
    return bytes(msgspec.json.decode(body, type=dict[str, msgspec.Raw]).get(member, msgspec.Raw(b"{}")))


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = sorted(name for name, _ in pairs)
        twice = next(name for name, following in itertools.pairwise(names) if name == following)
        raise ValueError(f"expected each member once, found {json.dumps(twice[:60])} twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"expected a value of JSON, found {name}")


def _encoded(body: bytes) -> str:
    """The message for a body that is compressed or not in UTF-8 (RFC 8259, 8.1); "" for any other."""
    for coding, beginning in CODINGS.items():
        if body.startswith(beginning):
            return f"expected JSON, found {coding}: a body may not be compressed"
    charset = json.detect_encoding(body)
    return "" if charset.startswith("utf-8") else f"expected JSON in UTF-8, found {charset.upper()}"


def _where(error: json.JSONDecodeError) -> str:
    """What was expected in the place of an error, and what was found."""
    expected = next((text for start, text in EXPECTED.items() if error.msg.startswith(start)), "JSON")
    found = error.doc[error.pos : error.pos + 1]
    at = f"at line {error.lineno}, column {error.colno}"
    shown = json.dumps(found, ensure_ascii=not found.isprintable()) if found else "the end"
    return f"expected {expected} {at}, found {shown}"


def _whole(text: str) -> int:
    if len(text) > DIGITS_MAX:
        raise ValueError(f"expected a number of {DIGITS_MAX} digits at most, found one of {len(text)}")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"expected a number that a double can hold, found {text[:60]}")
    return value


def _check_values(document: Any) -> None:
    """Raises ``Problem`` if the document is nested too deeply, or a text holds half a surrogate pair."""
    waiting = [(document, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, dict | list):
            if depth > DEPTH_MAX:
                raise Problem("not-json", f"expected at most {DEPTH_MAX} levels, found more")
            if isinstance(value, dict):
                for name in value:
                    _check_text(name)
                value = value.values()
            waiting += [(part, depth + 1) for part in value]


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Problem("not-json", "expected whole characters, found half of a surrogate pair") from error
