"""The request of a source as a template: the address (RFC 6570 over params), headers, cookies and a body.

{param}   {before.token}   {secret.NAME}      everywhere but in the address, which has params only
"""

import base64
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec
import uritemplate
from msgspec import Struct

from jobs.definition import hosts
from jobs.definition.hosts import HostRefused
from jobs.definition.reader import Reader, Table, Where, show
from jobs.origin import fixed_origin, origin_of, origin_or_none
from jobs.text import values
from regions.faults import nearest

METHODS: Final = ("GET", "POST", "PUT", "PATCH")
COOKIE_SAFE: Final = "!#$%&'()*+-./:<=>?@[]^_`{|}~"  # characters that RFC 6265 allows and quote would escape
DEFAULT_EGRESS: Final = "default"
KEYS: Final = ("method", "headers", "cookies", "form", "json", "body", "auth", "egress")

_VARIABLE: Final = r"[A-Za-z0-9_]+(?::[1-9]\d{0,3}|\*)?"
_URL: Final = re.compile(rf"(?:[^{{}}]|\{{[+#./;?&]?{_VARIABLE}(?:,{_VARIABLE})*\}})+")
_COMMON: Final = re.compile(r"\{([/?&]?)([A-Za-z0-9_]+(?:,[A-Za-z0-9_]+)*)\}")
_NAME: Final = re.compile(r"\{((?:before|secret)\.[A-Za-z_][A-Za-z0-9_]*|[A-Za-z_][A-Za-z0-9_]*)\}")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Auth(Struct, frozen=True):
    """``scheme`` is basic (``text`` is "user:password"), bearer (a token), or "" for none."""

    scheme: str = ""
    text: str = ""


class Ask(Struct, frozen=True, kw_only=True):
    """One request as a definition describes it."""

    url: str
    method: str = "GET"
    headers: dict[str, str] = {}
    cookies: dict[str, str] = {}
    form: dict[str, str] = {}
    json: Any = None
    body: str = ""
    auth: Auth = Auth()
    egress: str = DEFAULT_EGRESS
    hosts: tuple[str, ...] = ()  # that the address may lead to, if params decide that (jobs.definition.hosts)

    def expand(self, params: Mapping[str, Any]) -> str:
        """The address. A param without a value becomes nothing, as RFC 6570 says.

        Raises ``jobs.definition.hosts.HostRefused``, a ValueError, for a host that the definition does not name.
        """
        parts, origin = _template(self.url)
        if not parts:
            return self.url
        texts = {name: _text(value) for name, value in params.items()}
        expanded = "".join([part if isinstance(part, str) else part.expand(texts) for part in parts])
        if not origin:
            hosts.check(expanded, self.hosts, hosts.leaders(self.url))
        elif origin_or_none(expanded) != origin:
            raise HostRefused(f"expected an address of {origin}, found {expanded[:80]!r}")
        return expanded

    def origin(self, url: str) -> str:
        """The origin of an address from ``expand``, like ``jobs.origin.origin_of``."""
        return self.fixed_origin() or origin_of(url)

    def fixed_origin(self) -> str:
        """The origin of all its addresses; "" if params decide it."""
        return _template(self.url)[1]

    def secrets(self) -> list[str]:
        """The names of the secrets that the request needs."""
        return [name.removeprefix("secret.") for name in self.credentials() if name.startswith("secret.")]

    def credentials(self) -> list[str]:
        """The confidential names that it sends: ``secret.NAME`` and ``before.NAME``."""
        if not (self.headers or self.cookies or self.form or self.json or self.body or self.auth.text):
            return []  # most requests are just an address
        found = _NAME.findall(msgspec.json.encode([self.headers, self.cookies, self.form, self.json]).decode())
        found += _NAME.findall(f"{self.body}\n{self.auth.text}")
        return sorted({name for name in found if "." in name})


class _Expression(Struct, frozen=True):
    """A part of a template in braces, of the common kinds: {a,b}, {/a}, {?a,b} and {&a} (RFC 6570, 3.2).

    Every task's address is expanded twice, and uritemplate takes ten times as long.
    """

    operator: str
    names: tuple[str, ...]

    def expand(self, texts: Mapping[str, str | list[str] | None]) -> str:
        """The text that replaces it. A param without a value, or with an empty list, is left out."""
        is_named, found = self.operator in ("?", "&"), []
        for name in self.names:
            text = texts.get(name)
            if text is None or text == []:
                continue
            quoted = quote(text, "") if isinstance(text, str) else ",".join([quote(one, "") for one in text])
            found.append(f"{name}={quoted}" if is_named else quoted)
        separator = "&" if is_named else self.operator or ","
        return self.operator + separator.join(found) if found else ""


@functools.lru_cache(maxsize=4096)
def _template(url: str) -> tuple[list[str | _Expression | uritemplate.URITemplate], str]:
    """The parts of a template (none for an address without params), and the origin of all its addresses ("" if params decide)."""
    parts: list[str | _Expression | uritemplate.URITemplate] = []
    if "{" in url:
        for text, expression in re.findall(r"([^{]+)|(\{[^}]*\})", url):
            common = _COMMON.fullmatch(expression)
            if common is not None:
                parts.append(_Expression(common[1], tuple(common[2].split(","))))
            else:
                parts.append(text or uritemplate.URITemplate(expression))
    return parts, fixed_origin(url)


class Made(Struct, frozen=True):
    """The parts of a request besides the address."""

    method: str
    headers: dict[str, str]
    cookies: dict[str, str]
    body: bytes | None


def make(ask: Ask, names: Mapping[str, Any]) -> Made:
    """Fills in a request. ``names`` has params, ``before.x`` and ``secret.X``. A missing name becomes nothing."""
    headers = {key: text for key, raw in ask.headers.items() if (text := fill(raw, names)) is not None}
    if ask.auth.scheme == "basic":
        pair = (fill(ask.auth.text, names) or "").encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    elif ask.auth.scheme == "bearer":
        headers["Authorization"] = f"Bearer {fill(ask.auth.text, names) or ''}"
    headers = {key: " ".join(text.split()) for key, text in headers.items()}  # a line break would begin another header
    cookies = {
        key: quote(text, safe=COOKIE_SAFE) for key, raw in ask.cookies.items() if (text := fill(raw, names)) is not None
    }
    body: bytes | None = None
    kinds = {key.lower() for key in headers}
    if ask.form:
        body = urlencode({k: t for k, raw in ask.form.items() if (t := fill(raw, names)) is not None}).encode()
        if "content-type" not in kinds:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
    elif ask.json is not None:
        body = msgspec.json.encode(_filled(ask.json, names))
        if "content-type" not in kinds:
            headers["Content-Type"] = "application/json"
    elif ask.body:
        body = (fill(ask.body, names) or "").encode()
    return Made(ask.method, headers, cookies, body)


def fill(template: str, names: Mapping[str, Any]) -> str | None:
    """A text with its names filled in; None if it is a single name without a value."""
    alone = _NAME.fullmatch(template)
    if alone is not None:
        value = names.get(alone[1])
        return None if value is None else values.shown(value)
    return _NAME.sub(lambda name: "" if names.get(name[1]) is None else values.shown(names[name[1]]), template)


def _filled(value: Any, names: Mapping[str, Any]) -> Any:
    """JSON with its texts filled in. A text that is a single name takes its value with its type."""
    if isinstance(value, str):
        alone = _NAME.fullmatch(value)
        return names.get(alone[1]) if alone is not None else fill(value, names)
    if isinstance(value, list):
        return [_filled(one, names) for one in value]
    if isinstance(value, dict):
        return {key: _filled(one, names) for key, one in value.items()}
    return value


def _text(value: Any) -> Any:
    """A value as a text. By itself uritemplate would write ``True`` for true, and nothing for false."""
    if isinstance(value, list):
        return [values.shown(one) for one in value]
    return None if value is None else values.shown(value)


def read_ask(table: Table, params: Sequence[str], before: Sequence[str] = (), egress: str = "") -> Ask:
    """Reads the request of a table that has ``url`` and ``request``.

    ``params`` and ``before`` are the names that it may use; ``egress`` is the default of its egress.
    """
    request = table.table("request", KEYS)
    url = table.text("url")
    check_url(table.reader, url, table.at("url"), params)
    method = request.one_of("method", METHODS)
    bodies = [key for key in ("form", "json", "body") if key in request]
    if len(bodies) > 1:
        request.fault(bodies[1], f"expected one body, found {' and '.join(bodies)}")
    if bodies and method == "GET":
        request.fault("method", f"expected POST, PUT or PATCH beside {bodies[0]}, found GET")
    found = Ask(
        url=url,
        method=method or ("POST" if bodies else "GET"),
        headers=_texts(request, "headers", token=True),
        cookies=_texts(request, "cookies", token=True),
        form=_texts(request, "form"),
        json=request.get("json"),
        body=request.text("body"),
        auth=_read_auth(request),
        egress=request.text("egress", egress),
    )
    known = {*params, *(f"before.{name}" for name in before)}
    used = msgspec.json.encode([found.headers, found.cookies, found.form, found.json], enc_hook=str).decode()
    for name in dict.fromkeys(_NAME.findall(f"{used}\n{found.body}\n{found.auth.text}")):
        if not name.startswith("secret.") and name not in known:
            message = f"expected a param, before.NAME or secret.NAME, found {{{name}}}{nearest(name, known)}"
            table.fault("request", message)
    return found


def _variables(url: str) -> list[str]:
    """The names in an address's template; none if the template is invalid."""
    return list(uritemplate.variables(url)) if _URL.fullmatch(url) else []


def check_url(reader: Reader, url: str, where: Where, params: Sequence[str]) -> None:
    """Checks the template of an address."""
    if not url:
        return
    if re.search(r"\{[^}]*(?:secret|before)\.", url):
        reader.fault(where, "expected no secret and no before.NAME in the address, which results show; use [request]")
    elif not _URL.fullmatch(url):
        reader.fault(where, f'expected RFC 6570 expressions like {{name}} or {{?a,b}}, found "{url}"')
    else:
        for name in _variables(url):
            if name not in params:
                known = nearest(name, params) if params else "; [params] has none"
                reader.fault(where, f'expected names of [params], found "{name}"{known}')
        if not re.match(r"https?://|\{\+", url, re.IGNORECASE):
            reader.fault(where, f'expected an http or https address, found "{url}"')
        elif not fixed_origin(url) and not hosts.leaders(url):
            reader.fault(where, f'expected a host, and a port from 1 to 65535 if any, found "{url}"')


def _texts(table: Table, key: str, *, token: bool = False) -> dict[str, str]:
    raw = table.get(key, {})
    if not isinstance(raw, dict):
        table.fault(key, f"expected a table of texts, found {show(raw)}")
        return {}
    found = {}
    for name, value in raw.items():
        at = table.at(key, name)
        if isinstance(value, bool | int | float | str):
            found[name] = values.shown(value)
        else:
            table.reader.fault(at, f"expected a text, found {show(value)}")
        if token and not _TOKEN.fullmatch(name):
            table.reader.fault(at, f'expected a name without blanks and separators, found "{name}"')
        if re.search(r"[\r\n]", str(value)):
            table.reader.fault(at, "expected one line, found several")
        beyond = max(str(value), default="")
        if key == "headers" and beyond > "\xff":  # a cookie's value is quoted
            table.reader.fault(at, f'expected Latin-1 characters, found "{beyond}"')
    return found


def _read_auth(request: Table) -> Auth:
    if "auth" not in request:
        return Auth()
    auth = request.table("auth", ("basic", "bearer"))
    if len(auth) != 1:
        request.fault("auth", f"expected basic or bearer, found {' and '.join(auth) or 'neither'}")
        return Auth()
    scheme = next(iter(auth))
    return Auth(scheme, auth.text(scheme))


def mentions(asked: Ask, param: str) -> bool:
    """Whether a request uses a param."""
    rest = msgspec.json.encode([asked.headers, asked.cookies, asked.form, asked.json, asked.body, asked.auth.text])
    return param in _variables(asked.url) or param in _NAME.findall(rest.decode())
