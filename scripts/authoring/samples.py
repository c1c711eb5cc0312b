"""Samples: a source's answers, stored beside its definition with the records that they give, as a test of it.

    FOLDER/ID.toml
    FOLDER/samples/ID/NAME/sample.json     params, expected end, and for each answer: request, final URL, status, headers
                           records.json    the records, one on each line
                           1.html 2.html … the bodies of the answers as they came, decompressed

All secrets are removed (``jobs.answers.redact``). Stand-ins take their place when a sample is run.
"""

import json
import re
import shutil
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct
from requests.structures import CaseInsensitiveDict

from jobs.answers.redact import REMOVED, Redaction
from jobs.definition.ask import Ask
from jobs.definition.model import Definition
from jobs.errors import ConnectionFailed
from jobs.fetch.fetcher import Terms
from jobs.page import Page, Request
from regions.faults import Fault, Faults
from regions.settings import ROOT, Settings
from scripts.authoring.trial import Trial

FOLDER: Final = "samples"
ABOUT: Final = "sample.json"
RECORDS: Final = "records.json"
# Headers about the transfer of an answer; the stored body is decompressed.
TRAVEL: Final = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection", "keep-alive"})
NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
SHIPPED: Final = ROOT / "jobs" / "sources"
SUFFIXES: Final = {
    "html": "html", "xhtml": "html", "json": "json", "xml": "xml", "rss": "xml", "atom": "xml", "csv": "csv", "zip": "zip",
    "text": "txt",
}  # fmt: skip


class Answer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer. ``url`` was requested; ``final_url`` is the one after redirects; ``body`` is the name of a file beside it."""

    method: str = "GET"
    url: str
    final_url: str = ""
    status: int = 200
    headers: dict[str, str] = {}
    body: str


class About(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of sample.json. ``error`` is the type of the expected failure, "" for none."""

    params: dict[str, Any] = {}
    error: str = ""
    partial: bool = False
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Sample:
    """A sample, read from the disk."""

    source: str
    path: Path
    about: About
    records: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """``ID/NAME``."""
        return f"{self.source}/{self.path.name}"


class Kept:
    """Answers requests from a sample. Answers for the same method and URL are given in their stored order."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        self._left: dict[tuple[str, str], deque[Answer]] = defaultdict(deque)
        for answer in sample.about.answers:
            self._left[answer.method, answer.url].append(answer)

    def fetch(self, request: Request, _terms: Terms, /) -> Page:
        """The stored answer. Raises ConnectionFailed for a request that was not made when the sample was taken."""
        left = self._left[request.method, request.url]
        if not left:
            kept = ", ".join(dict.fromkeys(f"{one.method} {one.url}" for one in self._sample.about.answers))
            raise ConnectionFailed(
                f"expected one of the sample's addresses ({kept}), found {request.method} {request.url}"
            )
        answer = left.popleft()
        body = (self._sample.path / answer.body).read_bytes()
        headers: CaseInsensitiveDict[str] = CaseInsensitiveDict(answer.headers)
        return Page(request, answer.final_url or answer.url, answer.status, headers, body, request.params)

    def close(self) -> None:
        """Does nothing: there are no connections."""

    def unasked(self) -> list[str]:
        """The stored answers that were not requested."""
        return [f"{one.method} {one.url}" for left in self._left.values() for one in left]


def stand_ins(definition: Definition) -> dict[str, str]:
    """A stand-in for each secret that a definition names, so that its samples need no secrets."""
    return {name: REMOVED for asked in _asks(definition) for name in asked.secrets()}


def home(settings: Settings, path: Path) -> Path:
    """The folder of a definition's samples, beside the definition.

    For shipped definitions it is in the user's own folder, if there is one.
    """
    own = settings.sources.folders
    folder = path.absolute().parent
    return (own[0] if own and folder == SHIPPED else folder) / FOLDER


def read_all(settings: Settings, source: str, path: Path) -> Iterator[Sample]:
    """The samples of a source, by name. Raises ``Faults`` when one can't be read."""
    folders = dict.fromkeys([*(one.absolute() for one in settings.source_folders), path.absolute().parent])
    for folder in folders:
        for about in sorted((folder / FOLDER / source).glob(f"*/{ABOUT}")):
            yield read(source, about.parent)


def read(source: str, folder: Path) -> Sample:
    """Reads a sample. Raises ``Faults``."""
    place = f"{source}/{folder.name}"
    try:
        about = msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
        records = msgspec.json.decode((folder / RECORDS).read_bytes(), type=list[dict[str, Any]])
        for answer in about.answers:
            if Path(answer.body).name != answer.body or not (folder / answer.body).is_file():
                raise Faults(
                    [Fault(f"{place}/{ABOUT}", None, "body", f"expected a file beside it, found {answer.body}")]
                )
    except (OSError, msgspec.DecodeError) as error:
        raise Faults([Fault(place, None, "", f"expected a sample, found: {error}")]) from error
    return Sample(source, folder, about, records)


def write(folder: Path, done: Trial, secrets: Mapping[str, str]) -> None:
    """Writes a sample of a trial, without secrets. It replaces an older one of this name as a whole."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    redaction = _redaction(done, secrets)
    answers = []
    for number, exchange in enumerate(done.exchanges, 1):
        assert exchange.page is not None
        page = exchange.page
        name = f"{number}.{_suffix(page)}"
        (new / name).write_bytes(redaction.bytes(page.body))
        headers = {key: value for key, value in redaction.headers(page.headers) if key.lower() not in TRAVEL}
        answers.append(
            Answer(
                method=exchange.request.method,
                url=redaction.text(exchange.request.url),
                final_url="" if page.url == exchange.request.url else redaction.text(page.url),
                status=page.status,
                headers=headers,
                body=name,
            )
        )
    error = done.result["error"]
    about = About(
        params=dict(done.params),
        error=error["type"] if error is not None else "",
        partial=done.result["partial"],
        answers=tuple(answers),
    )
    write_expected(new, about, json.loads(redaction.text(json.dumps(done.rows, ensure_ascii=False))))
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def write_expected(folder: Path, about: About, records: Sequence[Mapping[str, Any]]) -> None:
    """Writes sample.json and records.json. The latter has a record on each line, so that a diff shows what changed."""
    (folder / ABOUT).write_bytes(msgspec.json.format(msgspec.json.encode(about), indent=1) + b"\n")
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    (folder / RECORDS).write_text(f"[\n{lines}\n]\n" if lines else "[]\n", encoding="utf-8")


def name_of(params: Mapping[str, object]) -> str:
    """A sample's name, made of the values of its params; ``plain`` without params."""
    text = "-".join(str(value) for value in params.values() if value is not None)
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.")[:60] or "plain"


def _suffix(page: Page) -> str:
    kind = page.header("content-type").partition(";")[0].lower()
    return next((suffix for word, suffix in SUFFIXES.items() if word in kind), "bin")


def _redaction(done: Trial, secrets: Mapping[str, str]) -> Redaction:
    named = {secrets[name] for asked in _asks(done.definition) for name in asked.secrets() if name in secrets}
    return Redaction(named)


def _asks(definition: Definition) -> Iterable[Ask]:
    return [definition.ask, *([definition.before.ask] if definition.before is not None else [])]
