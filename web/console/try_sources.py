"""The page *Try*: find sources, ask them, see the results come in.

    /                                       all sources
    /try?source=ecb.history&1.days=90       a form from the params of each chosen source, filled; this address can be shared

A source may stand there several times; ``N.NAME`` is the param of the N-th one. try.js posts the form as any client would.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from msgspec import Struct

from web.api.query import Query
from web.console.frame import Page, Parts, badge, code, document_of, empty
from web.http.exchange import Exchange
from web.http.markup import NOTHING, Child, Html, join, tag

ASKS_MAX: Final = 20  # sources of one form
WHOLE: Final = re.compile(r"[+-]?[0-9]{1,18}")
REAL: Final = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{1,15})?")
TYPES: Final = {
    "str": "text", "int": "whole number", "decimal": "decimal number", "float": "number", "bool": "true or false",
    "date": "date", "datetime": "time", "duration": "duration", "url": "address",
}  # fmt: skip
SAMPLES: Final = {"datetime": "2026-11-24T04:14:00Z", "duration": "PT1H30M", "url": "https://…", "date": "2026-11-24"}

Source = Mapping[str, Any]  # as in the catalogue


class Ask(Struct, frozen=True):
    """One source of the form. ``given`` are the params of the address by name; ``is_filled``: it names at least one."""

    number: int
    source: Source
    given: dict[str, str]
    is_filled: bool

    def text(self, name: str, param: Mapping[str, Any]) -> str:
        """What stands in a field: what the address says, or else an example where something is required."""
        if self.is_filled or not param["required"] or param["example"] is None:
            return self.given.get(name, "")
        return shown(param["example"])

    def params(self) -> dict[str, Any]:
        """The params as JSON takes them; a text that is none of its type stays one, and is refused with a reason."""
        found = {}
        for name, param in self.source["params"].items():
            text = self.text(name, param)
            if text != "":
                found[name] = typed(param["type"], text)
        return found


def start(parts: Parts, exchange: Exchange) -> Page:
    """``/``: all sources. ``?q=`` finds some of them."""
    query = Query(exchange, ("q",))
    query.check()
    wanted = (query.text("q") or "").strip()
    found: Sequence[Source] = document_of(parts.overview.sources())["sources"]
    chosen = [one for one in found if all(word in _found_by(one) for word in wanted.lower().split())]
    search = tag(
        "form",
        tag("label", "Find a source", for_="q", class_="unseen"),
        tag("input", id="q", name="q", type="search", value=wanted, placeholder="Find a source by its name, title, region or params", autocomplete="off"),
        tag("noscript", tag("button", "Find")),
        role="search", action="/", class_="search",
    )  # fmt: skip
    none = (
        empty("No source is like that.")
        if found
        else empty("There are no sources yet. nearfetch source new writes the first one.")
    )
    body = (
        tag(
            "form",
            tag("ul", (_card(one) for one in chosen), class_="cards", id="sources"),
            tag("div", none, id="none", hidden=bool(chosen)),
            tag(
                "div",
                tag("button", "Ask the chosen sources together"),
                tag("span", "Choose any number of them.", class_="muted small", id="chosen", aria_live="polite"),
                class_="row foot", hidden=not chosen,
            ),
            action="/try",
        ),
    )  # fmt: skip
    lead = tag(
        "p",
        "Data on demand, fetched and parsed close to where each source lives. Ask one and see its records come in.",
        class_="muted",
    )
    return Page("Try", join(tag("h1", "Try a source"), lead, search, body), ("search.js",))


def page(parts: Parts, exchange: Exchange) -> Page:
    """``/try``: a form for the chosen sources, room for the results, and the same call for a shell and for Python."""
    pairs = Query(exchange, None).pairs
    known = {one["id"]: one for one in document_of(parts.overview.sources())["sources"]}
    asks, unknown = _asks(pairs, known)
    if not asks:
        missing = [tag("p", "There is no source ", tag("code", name), ".", class_="notice bad") for name in unknown]
        said = missing or [empty(join("Choose a source ", tag("a", "from the list", href="/"), " first."))]
        return Page("Try", join(tag("h1", "Try"), said))
    own = {name: text for name, text in pairs if name in ("max_age", "deadline")}
    names = list(dict.fromkeys(ask.source["id"] for ask in asks))
    title = asks[0].source["title"] if len(asks) == 1 else f"{len(asks)} sources at once"
    address = parts.address(exchange)
    has_keys = parts.settings.gateway.keys
    form = tag(
        "form",
        tag("button", "Run", class_="unseen", tabindex=-1, aria_hidden="true"),  # what Enter presses is the first one
        (tag("p", "There is no source ", tag("code", name), ".", class_="notice bad") for name in unknown),
        (_fields(ask, is_only=len(asks) == 1) for ask in asks),
        _more(own, parts),
        tag("div", id="problem", role="alert"),
        tag(
            "div",
            tag("button", "Run", id="run"),
            tag("button", "Cancel", id="cancel", type="button", class_="quiet", hidden=True),
            tag("button", "Copy a link to this", id="share", type="button", class_="quiet", hidden=True),
            class_="row",
        ),
        tag("noscript", tag("p", "To see results here a browser needs scripts. Without them, Run writes the commands below.", class_="muted small")),
        _another(known, names),
        id="ask", action="/try", novalidate=True,
    )  # fmt: skip
    results = tag(
        "section",
        tag("div", tag("h2", "Results", id="results-title"), tag("span", id="state"), class_="row spread"),
        tag("div", empty("Nothing was asked yet."), id="results"),
        aria_labelledby="results-title", class_="results",
    )  # fmt: skip
    main = (
        tag("p", tag("a", "All sources", href="/"), class_="small back"),
        tag("h1", title),
        tag("div", tag("div", form, class_="side"), tag("div", results, _codes(asks, own, address, has_keys=has_keys), class_="wide"), class_="halves"),
    )  # fmt: skip
    return Page(f"Try {', '.join(names[:3])}", join(main), ("try.js",))


def _asks(pairs: Sequence[tuple[str, str]], known: Mapping[str, Source]) -> tuple[list[Ask], list[str]]:
    """Returns (the sources of an address with their params, the names that are none)."""
    drop = {text for name, text in pairs if name == "drop"}
    params: dict[str, dict[str, str]] = {}
    for name, text in pairs:
        number, dot, param = name.partition(".")
        if dot and number.isascii() and number.isdecimal():
            params.setdefault(number, {}).setdefault(param, text)
    asks: list[Ask] = []
    unknown: list[str] = []
    chosen = [text for name, text in pairs if name == "source" and text][:ASKS_MAX]
    for place, source in enumerate(chosen, 1):
        if source not in known:
            unknown.append(source[:60])
        elif str(place) not in drop:
            given = params.get(str(place))
            asks.append(Ask(len(asks) + 1, known[source], given or {}, given is not None))
    return asks, unknown


def _found_by(source: Source) -> str:
    return " ".join([source["id"], source["title"], source["region"], source["health"], *source["params"]]).lower()


def _card(source: Source) -> Html:
    name = source["id"]
    params = ", ".join(source["params"])
    return tag(
        "li",
        tag(
            "div",
            tag("a", name, href=f"/try?{urlencode({'source': name})}", class_="name"),
            badge(source["health"]) if source["health"] not in ("ok", "unknown") else None,
            tag("input", type="checkbox", name="source", value=name, aria_label=f"Choose {name}", class_="end"),
            class_="row",
        ),
        tag("p", source["title"]) if source["title"] != name else None,
        tag("p", tag("span", source["region"]), tag("span", f"asks for {params}") if params else None, class_="muted small dots"),
        class_="card pick", data_find=_found_by(source),
    )  # fmt: skip


def _fields(ask: Ask, *, is_only: bool) -> Html:
    source = ask.source
    about = [
        badge(source["health"]) if source["health"] not in ("ok", "unknown") else None,
        tag("span", source["region"], class_="muted small"),
    ]
    drop = (
        None
        if is_only
        else tag(
            "button", "Remove", name="drop", value=ask.number, class_="quiet end", aria_label=f"Remove {source['id']}"
        )
    )
    fields = [_field(ask, name, param) for name, param in source["params"].items()]
    return tag(
        "fieldset",
        tag("legend", tag("a", source["id"], href=f"/sources/{source['id']}")),
        tag("div", about, drop, class_="row"),
        tag("p", source["title"], class_="muted small") if not is_only else None,
        [tag("p", reason, class_="notice fair small") for reason in source["reasons"] if source["health"] not in ("ok", "unknown")],
        tag("input", type="hidden", name="source", value=source["id"]),
        fields or tag("p", "It takes no params.", class_="muted small"),
        class_="card ask", data_ask=ask.number,
    )  # fmt: skip


def _field(ask: Ask, name: str, param: Mapping[str, Any]) -> Html:
    """A field of the form, with what may stand in it."""
    kind, own, text = param["type"], f"{ask.number}.{name}", ask.text(name, param)
    is_required = bool(param["required"])
    told: dict[str, str | bool | None] = {
        "id": own, "name": own, "aria_required": "true" if is_required else None, "aria_describedby": f"{own}-error {own}-hint",
        "data_type": kind,
    }  # fmt: skip
    choices = param.get("enum") or (["true", "false"] if kind == "bool" else [])
    example = param["example"] if param["example"] is not None else param["default"]
    if choices:
        options = [tag("option", "—" if is_required else "as by default", value="")]
        options += [tag("option", shown(one), value=shown(one), selected=shown(one) == text) for one in choices]
        if text and text not in map(shown, choices):  # it was in the address; the gateway says why it is wrong
            options.append(tag("option", text, value=text, selected=True))
        field = tag("select", options, **told)
    else:
        hint = shown(example) if example is not None else SAMPLES.get(kind, "")
        modes = {"int": "numeric", "decimal": "decimal", "float": "decimal", "url": "url"}
        field = tag(
            "input", **told, value=text, placeholder=hint or None, autocomplete="off", spellcheck="false",
            type="date" if kind == "date" and re.fullmatch(r"(\d{4}-\d\d-\d\d)?", text) else "text", inputmode=modes.get(kind),
            maxlength=param["max"] if kind == "str" and isinstance(param.get("max"), int) else None,
        )  # fmt: skip
    label = tag("label", name, tag("span", " required", class_="required") if is_required else None, for_=own)
    error = tag("span", id=f"{own}-error", class_="error")
    return tag("div", label, field, error, tag("span", _hint(param), id=f"{own}-hint", class_="hint"), class_="field")


def _hint(param: Mapping[str, Any]) -> Child:
    """What a param takes, in words."""
    kind = param["type"]
    parts = [param["title"]] if param.get("title") else []
    parts.append(TYPES.get(kind, kind))
    low, high = param.get("min"), param.get("max")
    unit = " characters" if kind in ("str", "url") else ""
    if low is not None and high is not None:
        parts.append(f"{low} to {high}{unit}")
    elif low is not None or high is not None:
        parts.append(f"from {low}{unit}" if high is None else f"up to {high}{unit}")
    if param.get("pattern"):
        parts.append(f"like {param['pattern']}")
    if param.get("hosts"):
        parts.append(f"at {', '.join(param['hosts'])}")
    if param["default"] is not None:
        parts.append(f"by default {shown(param['default'])}")
    if param["example"] is not None:
        parts.append(f"for example {shown(param['example'])}")
    return " · ".join(parts)


def _more(own: Mapping[str, str], parts: Parts) -> Html:
    """What belongs to the request as a whole."""
    limits = parts.settings.limits

    def field(name: str, label: str, hint: str) -> Html:
        return tag(
            "div",
            tag("label", label, for_=name),
            tag("input", id=name, name=name, value=own.get(name, ""), inputmode="decimal", autocomplete="off", aria_describedby=f"{name}-error {name}-hint"),
            tag("span", id=f"{name}-error", class_="error"),
            tag("span", hint, id=f"{name}-hint", class_="hint"),
            class_="field",
        )  # fmt: skip

    return tag(
        "details",
        tag("summary", "Deadline and age"),
        field("deadline", "Deadline in seconds", f"{limits.deadline_seconds:g} by default, {limits.deadline_max_seconds:g} at most"),
        field("max_age", "How old a result may be, in seconds", "0 by default: it is fetched now"),
        open=any(own.values()), class_="card",
    )  # fmt: skip


def _another(known: Mapping[str, Source], names: Sequence[str]) -> Html:
    options = [tag("option", "Add another source…", value="")]
    options += [tag("option", name, value=name) for name in known]
    return tag(
        "div",
        tag("label", "Another source", for_="another", class_="unseen"),
        tag("select", options, id="another", name="source"),
        tag("button", "Add", id="add", class_="quiet"),
        class_="row another", data_asks=len(names),
    )  # fmt: skip


def _codes(asks: Sequence[Ask], own: Mapping[str, str], address: str, *, has_keys: bool) -> Html:
    shell, python = curl(asks, own, address, has_keys=has_keys), in_python(asks, own, address, has_keys=has_keys)
    hint = (
        tag("p", "Both take the key from the environment, as NEARFETCH_KEY.", class_="muted small")
        if has_keys
        else NOTHING
    )
    return tag(
        "section",
        tag("h2", "The same from a program"),
        tag("h3", "curl"),
        code(shell, label="the curl command"),
        tag("h3", "Python, with clients/python"),
        code(python, label="the Python program"),
        hint,
        id="codes",
    )  # fmt: skip


def curl(asks: Sequence[Ask], own: Mapping[str, str], address: str, *, has_keys: bool) -> str:
    """The call for a shell: one source is read at once, several are posted and streamed."""
    key = ' -H "Authorization: Bearer $NEARFETCH_KEY"' if has_keys else ""
    if len(asks) == 1:
        params = {name: shown(one) for name, one in asks[0].params().items()}
        query = urlencode({**params, **{name: text for name, text in own.items() if text}})
        url = f"{address}/v1/sources/{asks[0].source['id']}/records" + (f"?{query}" if query else "")
        return f"curl -s{key} {shlex.quote(url)}"
    body = json.dumps(document(asks, own))
    post = f"curl -s{key} -H 'Content-Type: application/json' {shlex.quote(f'{address}/v1/requests')} \\\n  -d {shlex.quote(body)}"
    return f"{post}\ncurl -sN{key} {shlex.quote(f'{address}/v1/requests/ID/events')}"


def in_python(asks: Sequence[Ask], own: Mapping[str, str], address: str, *, has_keys: bool) -> str:
    """The call for Python with the client of ``clients/python``."""
    named = [f"{name}={typed('float', text)!r}" for name, text in own.items() if text]
    lines = ["from nearfetch_client import Nearfetch", "", f"client = Nearfetch({address!r})"]
    if has_keys:
        lines[-1] += "  # and the key from NEARFETCH_KEY"
    if len(asks) == 1:
        params = [repr(asks[0].params())] if asks[0].params() else []
        given = ", ".join([repr(asks[0].source["id"]), *params, *named])
        lines.append(f"for record in client.fetch({given}).records:")
        lines.append("    print(record)")
    else:
        lines.append("request = client.submit(")
        lines += [
            f"    ({ask.source['id']!r}, {ask.params()!r})," if ask.params() else f"    {ask.source['id']!r},"
            for ask in asks
        ]
        lines += [f"    {one}," for one in named]
        lines += [
            ")",
            "for result in request.results():",
            "    print(result.source, result.status, len(result.records))",
        ]
    return "\n".join(lines)


def document(asks: Sequence[Ask], own: Mapping[str, str]) -> dict[str, Any]:
    """The body of the post."""
    sources = [
        {"source": ask.source["id"], "params": ask.params()} if ask.params() else ask.source["id"] for ask in asks
    ]
    return {"sources": sources, **{name: typed("float", text) for name, text in own.items() if text}}


def typed(kind: str, text: str) -> Any:
    """A field's text as a param of a type has it in JSON."""
    if kind == "int" and WHOLE.fullmatch(text):
        return int(text)
    if kind == "float" and REAL.fullmatch(text):
        return float(text) if "." in text else int(text)
    if kind == "bool" and text in ("true", "false"):
        return text == "true"
    return text


def shown(value: Any) -> str:
    """A param's value as it stands in a query."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
