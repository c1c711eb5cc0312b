"""``nearfetch source replay``: lists stored raw answers, shows one, or parses one again with today's definition."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click

from jobs.answers import raw, store
from jobs.answers.raw import Kept
from jobs.answers.store import Stored
from jobs.contract import rfc3339
from regions.settings import Region, Settings
from scripts.authoring import record_diff
from scripts.authoring.replay import Replay, Replayer, Result
from scripts.terminal import counted, duration, say, say_json, size

SAME: Final = 0
DIFFERENT: Final = 1
NOTHING_KEPT: Final = 4

Place = tuple[Region, Stored]


def run(settings: Settings, task: str, source: str, *, page: int | None, as_json: bool, every: bool) -> int:
    """Returns the exit code. Without a task and a source it lists. Raises click's ``UsageError``."""
    if task and source:
        raise click.UsageError("expected a TASK or --source, found both")
    if page is not None and not task:
        raise click.UsageError("expected a TASK beside --page, found none")
    places = [place for place in kept_here(settings) if task in ("", place[1].task) and source in ("", place[1].source)]
    if not places:
        say(nothing(settings, task or source), err=True)
        return NOTHING_KEPT
    if task:
        place = max(places, key=lambda one: one[1].attempt)
        return (
            show_page(read(place), page) if page is not None else tell(settings, [place], as_json=as_json, every=every)
        )
    if source:
        return tell(settings, places, as_json=as_json, every=every)
    for region, file in places:
        if as_json:
            say_json(listed(region, file))
        else:
            say(line(region, file))
    return SAME


def kept_here(settings: Settings) -> list[Place]:
    """The stored tasks in the regions' folders on this machine, oldest first. Raises click's ``UsageError`` for an unreadable folder."""
    found: list[Place] = []
    for region in settings.region.values():
        try:
            found += [(region, file) for file in store.stored(region.raw)]
        except FileNotFoundError:
            continue  # nothing was stored yet, or not on this host
        except OSError as error:
            raise click.UsageError(f"expected a readable folder of raw answers: {error}") from error
    return sorted(found, key=lambda place: place[1].modified)


def nothing(settings: Settings, wanted: str) -> str:
    """The message that says why there is nothing to show, and which folders were searched."""
    folders = {f"{name}: {one.raw.path}" for name, one in settings.region.items() if one.raw.path}
    if not folders:
        return "No region keeps raw answers here: set raw.path in a region's file, or name a scripts/up by --data."
    of = f" of {wanted}" if wanted else ""
    return (
        f"Nothing is kept{of} on this host ({'; '.join(sorted(folders))}). The host where a task ran keeps its answers for a "
        "while if it failed after an answer, and those of a success now and then."
    )


def read(place: Place) -> Kept:
    """A file's content. Raises click's ``UsageError`` when the file is gone or of another version."""
    try:
        return raw.read(place[1].path.read_bytes())
    except (OSError, ValueError) as error:
        raise click.UsageError(f"expected kept answers in {place[1].path}: {error}") from error


def show_page(kept: Kept, number: int) -> int:
    """Prints the body of a stored answer as it came (on a terminal as text), and its head to standard error."""
    if not 1 <= number <= len(kept.answers):
        raise click.UsageError(f"expected a page from 1 to {len(kept.answers)}, found {number}")
    answer = kept.answers[number - 1]
    say(f"{answer.method} {answer.url}\n{answer.status} {answer.final_url}", err=True)
    for name, value in answer.headers:
        say(f"{name}: {value}", err=True)
    if answer.note:
        say(f"({answer.note})", err=True)
    sys.stdout.flush()
    if sys.stdout.isatty():
        say(answer.unpacked().decode("utf-8", "backslashreplace"))
    else:
        sys.stdout.buffer.write(answer.unpacked())
    return SAME


def tell(settings: Settings, places: Sequence[Place], *, as_json: bool, every: bool) -> int:
    """Replays each stored task and says how it differs. The exit code says whether any does."""
    count = different = 0
    replayers = {name: Replayer(settings, settings.one(name)) for name in {region.name for region, _ in places}}
    for place in places:
        found = replayers[place[0].name].replay(read(place))
        count, different = count + 1, different + (not found.is_same)
        if as_json:
            say_json(as_json_of(found))
        else:
            for text in lines(found, every=every):
                say(text)
    if not as_json and count > 1:
        say(f"{different} of {count} came out differently" if different else f"all {count} came out the same")
    return DIFFERENT if different else SAME


def lines(found: Replay, *, every: bool) -> Iterator[str]:
    """A replay for people."""
    kept, before, now = found.kept, found.before, found.now
    yield f"{kept.task.task}  {kept.task.source}  {kept.region}  attempt {kept.attempt}, {rfc3339(kept.kept_ms)}"
    for answer in kept.answers:
        what = answer.error.type if answer.error is not None else size(len(answer.unpacked()))
        yield f"  {answer.method} {answer.url}  {answer.status}  {what}{f'  ({answer.note})' if answer.note else ''}"
    yield f"  before  {kept.definition}  {ended(before)}"
    yield f"  now     {now['definition']}  {ended(now)}"
    yield from (f"  note: {note}" for note in found.notes)
    yield from (f"  warning: {warning}" for warning in now["warnings"] if warning not in before["warnings"])
    yield from (f"  {text}" for text in record_diff.lines(found.differences, every=every))
    yield "  the same" if found.is_same else "  different"


def ended(result: Result) -> str:
    """How a result ended, in one line."""
    if result["status"] != "succeeded":
        error = result["error"]
        return f"{result['status']}  {error['type']}: {error['message']}"
    partial = f", partial: {result['warnings'][-1]}" if result["partial"] else ""
    return f"succeeded, {counted(result['count'], 'record')}{partial}"


def as_json_of(found: Replay) -> dict[str, Any]:
    """A replay for programs."""
    kept = found.kept
    answers = [
        {
            "method": answer.method,
            "url": answer.url,
            "final_url": answer.final_url,
            "status": answer.status,
            "bytes": len(answer.unpacked()),
            "note": answer.note,
        }
        for answer in kept.answers
    ]
    return {
        "task": kept.task.task,
        "source": kept.task.source,
        "region": kept.region,
        "attempt": kept.attempt,
        "kept_at": rfc3339(kept.kept_ms),
        "params": kept.task.params,
        "answers": answers,
        "same": found.is_same,
        "before": found.before,
        "now": found.now,
        "notes": found.notes,
        "differences": record_diff.as_json(found.differences),
    }


def listed(region: Region, file: Stored) -> dict[str, Any]:
    """A stored task for programs."""
    return {
        "task": file.task,
        "source": file.source,
        "region": region.name,
        "attempt": file.attempt,
        "sample": file.is_sample,
        "bytes": file.size,
        "kept_at": rfc3339(int(file.modified * 1000)),
    }


def line(region: Region, file: Stored) -> str:
    """A stored task for people."""
    age = duration(max(time.time() - file.modified, 0.0))
    kind = "sample" if file.is_sample else "failure"
    return f"{file.task}  {region.name:<8} {kind:<8} {size(file.size):>8}  {age:>7} ago  {file.source}"
