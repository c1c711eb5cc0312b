"""Signing in: a form takes an API key and gives a cookie, so that the key itself stays in no browser.

The cookie is HttpOnly and SameSite=Strict; where the gateway's public address is https also Secure and bound to its host
(``__Host-``). SameSite says nothing of other ports and names of one site: whatever makes or ends something by a cookie must come
from a page of this gateway as well (Fetch Metadata, or else the Origin).
"""

import contextlib
import re
import threading
import time
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, quote

from regions.settings import Settings
from web.api.query import Query
from web.console.frame import Page
from web.flow.keyring import Keyring
from web.http.answer import Answer
from web.http.exchange import Exchange, Head
from web.http.markup import tag
from web.http.owner import Owner
from web.http.problems import Problem
from web.hub import sessions
from web.hub.keys import Scope
from web.hub.redis import Hub, HubUnavailable

PATH: Final = "/signin"
OUT: Final = "/signout"
BODY_BYTES_MAX: Final = 4_000
FIELDS_MAX: Final = 10  # of the form, which has two
CONFIRMED_SECONDS, CONFIRMED_MAX = 60.0, 1_000
# A path of this gateway: neither //host nor /\host, which browsers take for another one.
_PATH: Final = re.compile(r"/(?![/\\])[!-\[\]-~]*")


class SignIn:
    """Sessions of a gateway with keys."""

    def __init__(self, settings: Settings, hub: Hub, keyring: Keyring) -> None:
        self._hub, self._keyring, self.is_on = hub, keyring, settings.gateway.keys
        self._public = settings.gateway.public_url.rstrip("/").lower()
        self._is_secure = self._public.startswith("https://")
        # Cookies know no ports: gateways of one machine would take each other's.
        own = "nearfetch" if self._public else f"nearfetch-{settings.gateway.port}"
        self.cookie = "__Host-nearfetch" if self._is_secure else own
        self._confirmed: dict[str, tuple[str, float]] = {}  # by session: its key, and when the hub said so (monotonic)
        self._lock = threading.Lock()

    def owner(self, head: Head, scope: Scope) -> Owner:
        """The owner of a call, by its key or by its session. Raises ``Problem``, and a ``HubUnavailable`` for a session."""
        authorization = head.header("Authorization")
        token = "" if authorization else self.token(head)
        if not token:
            return self._keyring.owner(authorization, scope)
        if scope != "read":
            self.check_own_page(head)
        return self._keyring.owner_by_id(self._key_of(token, scope), scope)

    def _key_of(self, token: str, scope: Scope) -> str:
        """The id of the key of a session, "" for none.

        A fault must not lock out the people who look for its cause. So while the hub is away, a session that it confirmed within the
        last minute may still read, and goes on as long as it is used once a minute.
        """
        try:
            with self._hub.asking() as client:
                key = sessions.key_of(client, token) or ""
        except HubUnavailable:
            with self._lock:
                key, at = self._confirmed.get(token, ("", float("-inf")))
            if scope != "read" or time.monotonic() - at > CONFIRMED_SECONDS:
                raise
        self._confirm(token, key)
        return key

    def _confirm(self, token: str, key: str) -> None:
        """Remembers whose a session is; without a key, that it is over."""
        with self._lock:
            self._confirmed.pop(token, None)
            if key:
                self._confirmed[token] = key, time.monotonic()
                if len(self._confirmed) > CONFIRMED_MAX:
                    del self._confirmed[next(iter(self._confirmed))]

    def token(self, head: Head) -> str:
        """The session that a browser sent, "" for none."""
        for part in head.header("Cookie").split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie:
                return value.strip('"')
        return ""

    def check_own_page(self, head: Head) -> None:
        """Raises ``Problem`` unless a page of this gateway asks, or its reader typed the address."""
        site, origin = head.header("Sec-Fetch-Site"), head.header("Origin").lower()
        if site:
            is_own = site in ("same-origin", "none")
        else:  # browsers say it only on https and on this machine
            host = head.header("Host").lower()
            is_own = bool(origin) and (origin == self._public or (bool(host) and origin.partition("://")[2] == host))
        if not is_own:
            raise Problem(
                "cross-site", "expected a page of this gateway to ask by its session, found another one, or none"
            )

    def page(self, exchange: Exchange) -> Page | Answer:
        """The form."""
        query = Query(exchange, ("next",))
        query.check()
        return self._form(_path(query.text("next") or "/")) if self.is_on else _redirect("/")

    def sign_in(self, exchange: Exchange) -> Page | Answer:
        """Takes the form: 303 with the cookie, or the form again."""
        if not self.is_on:
            return _redirect("/")
        self.check_own_page(exchange)
        form = _form_of(exchange)
        leads_to = _path(form.get("next", ["/"])[0])
        try:
            owner = self._keyring.owner(f"Bearer {form.get('key', [''])[0].strip()}", "read")
        except Problem as problem:
            if problem.kind not in ("unauthorized", "forbidden"):
                raise
            return self._form(leads_to, problem.detail)
        with self._hub.asking() as client:
            token = sessions.begin(client, owner.key)
        return _redirect(leads_to, self._cookie(token, sessions.SECONDS))

    def sign_out(self, exchange: Exchange) -> Answer:
        """Ends the session."""
        self.check_own_page(exchange)
        if token := self.token(exchange):
            self._confirm(token, "")
            with self._hub.asking() as client:
                sessions.end(client, token)
        return _redirect(PATH, self._cookie("", 0))

    def instead(self, exchange: Exchange) -> Answer:
        """The way to the form, for somebody without a session who asked for a page."""
        query = exchange.environ.get("QUERY_STRING", "")
        wanted = _path(quote(exchange.path.encode("latin-1"), safe="/") + (f"?{query}" if query else ""))
        return _redirect(PATH if wanted == "/" else f"{PATH}?next={quote(wanted, safe='/')}")

    def _form(self, leads_to: str, said: str = "") -> Page:
        """``said``: why the last try failed."""
        error = tag("span", said, id="key-error", class_="error", role="alert") if said else None
        form = tag(
            "form",
            tag(
                "div",
                tag("label", "API key", for_="key"),
                tag(
                    "input", id="key", name="key", type="password", required=True, autocomplete="current-password",
                    autofocus=True, spellcheck="false", aria_invalid="true" if said else None,
                    aria_describedby="key-error key-hint" if said else "key-hint",
                ),
                error,
                tag("span", "It begins with nf_. The operator of this gateway makes one with ", tag("code", "nearfetch key create"), ".", id="key-hint", class_="hint"),
                class_="field",
            ),
            tag("input", type="hidden", name="next", value=leads_to),
            tag("button", "Sign in"),
            method="post", action=PATH,
        )  # fmt: skip
        about = tag(
            "p",
            "This gateway asks for a key. A session lasts twelve hours, or until the key is revoked.",
            class_="muted",
        )
        main = tag("div", tag("h1", "Sign in"), about, form, class_="card narrow")
        return Page("Sign in", main, ("signin.js",), status=401 if said else 200)

    def _cookie(self, token: str, seconds: int) -> tuple[str, str]:
        secure = "; Secure" if self._is_secure else ""
        return "Set-Cookie", f"{self.cookie}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"


def _form_of(exchange: Exchange) -> dict[str, list[str]]:
    """The fields of the form that was sent. Raises ``Problem``."""
    kind = exchange.header("Content-Type").partition(";")[0]
    if exchange.body is not None and kind == "application/x-www-form-urlencoded":
        with contextlib.suppress(ValueError):  # too many fields
            return parse_qs(exchange.body.decode("utf-8", "replace"), max_num_fields=FIELDS_MAX)
    raise Problem("bad-request", f"expected the form of this page, of {BODY_BYTES_MAX} bytes at most")


def _path(text: str) -> str:
    """A path of this gateway to go to; ``/`` for anything else, which could lead to another site."""
    return text if _PATH.fullmatch(text) and not text.startswith((PATH, OUT)) else "/"


def _redirect(to: str, *headers: tuple[str, str]) -> Answer:
    return Answer(HTTPStatus.SEE_OTHER, b"", [("Location", to), ("Cache-Control", "no-store"), *headers])
