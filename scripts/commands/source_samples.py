"""``nearfetch source sample`` stores pages and records as a test; ``nearfetch source test`` runs all such tests."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click
import msgspec

from jobs.definition.catalog import Entry
from regions.settings import Settings
from scripts.authoring import record_diff, samples, trial
from scripts.authoring.record_diff import Difference
from scripts.authoring.samples import Kept, Sample
from scripts.authoring.trial import Files, Trial
from scripts.commands import source_try
from scripts.commands.source_check import faults, find, known
from scripts.terminal import counted, duration, say, say_json


def keep(
    settings: Settings,
    words: Sequence[str],
    *,
    files: Files | None,
    deadline_seconds: float | None,
    name: str,
    is_replacing: bool,
    may_fail: bool,
) -> int:
    """Runs a source and stores the pages and records as a sample. Returns 1 when it failed; then nothing is stored.

    Raises ``Faults`` and click's ``UsageError`` like ``try_command.attempt``, the latter also for a name that is taken.
    """
    entry, params, _ = source_try.asked(settings, words)
    name = name or samples.name_of(params)
    folder = samples.home(settings, entry.path) / entry.id / name
    if not samples.NAME.fullmatch(name):
        raise click.UsageError(f'expected a name of letters, digits, "_", "." and "-", found "{name}"')
    if folder.exists() and not is_replacing:
        raise click.UsageError(
            f"{entry.id} has a sample {name}: replace it with --replace, or choose another name with --name"
        )
    done, is_interrupted = source_try.attempt(
        settings, words, files=files, deadline_seconds=deadline_seconds, is_quiet=False
    )
    source_try.show(done, source_try.ROWS)
    if is_interrupted:
        return source_try.INTERRUPTED
    if any(one.page is None for one in done.exchanges) or not done.exchanges:
        say("Nothing is kept, since not every page arrived.")
        return 1
    if done.is_failed and not may_fail:
        say("Nothing is kept. With --failed it is kept, as a test that these pages fail in this way.")
        return 1
    samples.write(folder, done, settings.one(entry.region).secrets_of(entry.id))
    say(f"Kept in {folder}. Check {samples.RECORDS}: nearfetch source test {entry.id} will expect these records.")
    return 0


@dataclass(slots=True)
class Tested:
    """The outcome of a sample: what differs, in words (``told``) and record by record. Both are empty when nothing differs."""

    sample: Sample
    done: Trial | None
    told: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    @property
    def is_fine(self) -> bool:
        """Whether nothing differs."""
        return not self.told and not self.differences


def test(settings: Settings, sources: Sequence[str], *, is_updating: bool, as_json: bool, every: bool) -> int:
    """Runs all samples, or those of some sources. Returns 0 when all are as expected, 1 when some differ, 2 for faults.

    Raises click's ``UsageError`` when there is nothing to test.
    """
    found: list[Tested] = []
    broken: list[str] = []
    for entry in [find(settings, name) for name in sources] or known(settings).entries():
        kept = list(samples.read_all(settings, entry.id, entry.path))
        if not kept and sources:
            raise click.UsageError(f"{entry.id} has no samples yet: nearfetch source sample {entry.id} keeps one")
        wrong = faults(settings, entry) if kept else []
        broken += map(str, wrong)
        for sample in kept if not wrong else ():
            tested = run(settings, entry, sample)
            found.append(tested)
            if is_updating and not tested.is_fine:
                update(tested)
            if not as_json:
                show(tested, is_updated=is_updating, every=every)
    if not found and not broken:
        raise click.UsageError("there are no samples yet: nearfetch source sample ID keeps one")
    failed = [one for one in found if not one.is_fine and not (is_updating and can_update(one))]
    if as_json:
        say_json({"samples": [document(one) for one in found], "faults": broken})
    else:
        for line in broken:
            say(line)
        say(f"{len(found) - len(failed)} of {counted(len(found), 'sample')} as expected", err=True)
    return 2 if broken else int(bool(failed))


def run(settings: Settings, entry: Entry, sample: Sample) -> Tested:
    """Runs one sample, without a network."""
    assert entry.definition is not None
    about, answers = sample.about, Kept(sample)
    try:
        params = entry.definition.bind(about.params)
        done = trial.run(
            settings, entry, params, answers=answers, secrets=samples.stand_ins(entry.definition),
            deadline_seconds=settings.limits.deadline_max_seconds,
        )  # fmt: skip
    except ValueError as bad:  # BadParams is one too
        return Tested(sample, None, [f"its params are no longer valid: {bad}"])
    tested = Tested(sample, done, differences=record_diff.differences(sample.records, done.rows))
    error, partial = done.result["error"], done.result["partial"]
    if (error["type"] if error is not None else "") != about.error:
        ended = f"{error['type']}: {error['message']}" if error is not None else "it succeeded"
        tested.told.append(f"expected {about.error or 'it to succeed'}, found {ended}")
    if partial != about.partial:
        warning = next((one for one in done.result["warnings"] if " failed: " in one), "all pages")
        tested.told.append(f"expected {'a page to fail' if about.partial else 'all pages'}, found {warning}")
    tested.told += [f"expected it to ask for {one}, found no such fetch" for one in answers.unasked()]
    return tested


def can_update(tested: Tested) -> bool:
    """Whether the sample has all pages that the current definition asks for."""
    return tested.done is not None and all(one.page is not None for one in tested.done.exchanges)


def update(tested: Tested) -> None:
    """Makes the current outcome the expected one."""
    done = tested.done
    if done is None or not can_update(tested):
        return
    error = done.result["error"]
    about = msgspec.structs.replace(
        tested.sample.about, error=error["type"] if error is not None else "", partial=done.result["partial"]
    )
    samples.write_expected(tested.sample.path, about, done.rows)


def show(tested: Tested, *, is_updated: bool, every: bool) -> None:
    """Prints a line for the sample, and the differences below it."""
    done, name = tested.done, tested.sample.name
    figures = ""
    if done is not None:
        took = duration((done.result["timing"]["parse_ms"]) / 1000)
        figures = f"   {counted(len(done.rows), 'record')} of {counted(len(done.exchanges), 'page')}, parsed in {took}"
    mark = "ok     " if tested.is_fine else "updated" if is_updated and can_update(tested) else "differs"
    say(f"  {mark}  {name}{figures}")
    for line in [*tested.told, *record_diff.lines(tested.differences, every=every)]:
        say(f"           {line}")


def document(tested: Tested) -> dict[str, Any]:
    """The outcome of a sample, for programs."""
    return {
        "sample": tested.sample.name,
        "ok": tested.is_fine,
        "told": tested.told,
        "differences": record_diff.as_json(tested.differences),
    }
