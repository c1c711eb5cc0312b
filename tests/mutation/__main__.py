"""Changes each guard in one place and sees a test fail.

    python -m tests.mutation                            everything that targets.toml names (hours)
    python -m tests.mutation web/flow/settle.py bridge/      some of it
    python -m tests.mutation --sample 25 --seed 7       some mutants of each file
    python -m tests.mutation --list web/flow/sweep.py        only says what would be changed
    python -m tests.mutation --again web/flow/sweep.py       only tries what survived once more: there are new tests
    python -m tests.mutation --report                   what is known, without trying anything

Needs `pip install -r tests/mutation/requirements.txt`. Outcomes are kept (--results): the same command goes on where it was
ended. Ends with 0 when at least 95 % of what was tried, less what equivalent.toml lists, was killed; else with 1.
"""

import argparse
import os
import random
import sys
import threading
import tomllib
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

from tests import broker
from tests.mutation.mutants import Mutant, mutants
from tests.mutation.run import BaselineFails, Outcome, Results, Target, attempt_all, measure

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
WANTED = 0.95


def targets(wanted: list[str]) -> list[Target]:
    """What is to be mutated; raises ValueError for a path that no target has. A file's own tests stand for its folder's."""
    entries = tomllib.loads((HERE / "targets.toml").read_text())["target"]
    own = {one["path"] for one in entries}
    found = [
        Target(path, one["tests"])
        for one in entries
        for path in _files(one["path"])
        if path == one["path"] or path not in own
    ]
    for path in wanted:
        if not any(one.path.startswith(path) for one in found):
            raise ValueError(f"no target is {path} or below it; there are: {', '.join(one.path for one in found)}")
    return [one for one in found if not wanted or any(one.path.startswith(path) for path in wanted)]


def _files(path: str) -> list[str]:
    """The file, or the Lua files of a folder."""
    below = sorted((ROOT / path).glob("*.lua"))
    return [str(one.relative_to(ROOT)) for one in below] or [path]


def is_equivalent(mutant: Mutant) -> bool:
    """Whether a mutant changes nothing, as ``equivalent.toml`` says."""
    places = _equivalents().get((mutant.path, mutant.was, mutant.now), set())
    return bool(places & {"", mutant.place})


@cache
def _equivalents() -> dict[tuple[str, str, str], set[str]]:
    """By (path, was, now): the functions and scripts where it is so, "" for all of the file."""
    found: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for one in tomllib.loads((HERE / "equivalent.toml").read_text()).get("equivalent", []):
        found[one["path"], one["was"], one["now"]].add(one.get("place", ""))
    return found


def main(words: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation", description="Mutates guards and runs their tests."
    )
    parser.add_argument("paths", nargs="*", help="targets, or folders of them; all of targets.toml when there are none")
    parser.add_argument("--sample", type=int, help="try so many mutants of each file only, drawn by --seed")
    parser.add_argument("--seed", type=int, default=1, help="of --sample (1)")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at once (2)")
    parser.add_argument("--results", type=Path, default=ROOT / ".mutation.jsonl", help="where outcomes are kept")
    parser.add_argument("--again", action="store_true", help="only try again what survived")
    parser.add_argument("--report", action="store_true", help="only say what is known")
    parser.add_argument("--list", action="store_true", help="only list the mutants")
    asked = parser.parse_args(words)
    try:
        found = targets(asked.paths)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    work = []
    for target in found:
        made = mutants(target.path, (ROOT / target.path).read_text())
        if asked.sample is not None and asked.sample < len(made):
            made = random.Random(asked.seed).sample(made, asked.sample)
        work += [(target, one) for one in made]
    if asked.list:
        for _, mutant in work:
            print(f"{mutant.path}:{mutant.line}  {mutant.operator}\n  - {mutant.was}\n  + {mutant.now}")
        return 0
    results = Results(asked.results)
    judged = [(target, one) for target, one in work if not is_equivalent(one)]
    left = [
        (target, one)
        for target, one in judged
        if (
            one.key in results.known and not results.known[one.key].killed
            if asked.again
            else one.key not in results.known
        )
    ]
    if not asked.report:
        with broker.shared(os.environ) as environment:
            os.environ.update(environment)
            try:
                measure(list({id(target): target for target, _ in left}.values()), results, print)
            except BaselineFails as error:
                print(error, file=sys.stderr)
                return 1
            try_left(left, asked.jobs, results)
    return report([mutant for _, mutant in work], results)


def try_left(left: list[tuple[Target, Mutant]], jobs: int, results: Results) -> None:
    """Tries what has no outcome yet; says what survives the moment it does."""
    done, lock = 0, threading.Lock()

    def told(mutant: Mutant, outcome: Outcome) -> None:
        nonlocal done
        with lock:
            done += 1
            if not outcome.killed:
                print(f"SURVIVED {mutant.path}:{mutant.line}  {mutant.operator}\n  - {mutant.was}\n  + {mutant.now}")
            if done % 20 == 0 or done == len(left):
                print(f"{done} of {len(left)}", flush=True)

    attempt_all(left, jobs, results, told)


def report(work: list[Mutant], results: Results) -> int:
    """A line a file and one for all; 0 when enough were killed."""
    lines: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant in work:
        outcome = results.known.get(mutant.key)
        if is_equivalent(mutant):
            lines[mutant.path]["equivalent"] += 1
        elif outcome is None:
            lines[mutant.path]["not tried"] += 1
        else:
            lines[mutant.path]["killed" if outcome.killed else "survived"] += 1
            lines[mutant.path]["hung"] += "Timeout" in outcome.why or outcome.by == "time-out"
    lines["all"] = sum(lines.values(), Counter[str]())
    print(f"{'':<24} tried  killed  (hung)  survived  equivalent  not tried")
    for path, found in lines.items():
        killed, survived = found["killed"], found["survived"]
        share = f"{killed / (killed + survived):.1%}" if killed + survived else "-"
        print(
            f"{path:<24} {killed + survived:>5} {killed:>7} {found['hung']:>7} {survived:>9}"
            f" {found['equivalent']:>11} {found['not tried']:>10}  {share}"
        )
    tried = lines["all"]["killed"] + lines["all"]["survived"]
    return 0 if lines["all"]["killed"] >= WANTED * tried else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
