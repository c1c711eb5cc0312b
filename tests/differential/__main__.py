"""``python -m tests.differential [NAME…] [--seed N] [--count N]``: compares, and prints what differs.

A difference with a reason is counted, and shown with ``--all``. Ends with 1 where one has none.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.differential import Explained, comparison, names

SHOWN = 50  # differences of a comparison without a reason; the others are counted


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    known = names()
    parser = argparse.ArgumentParser(
        prog="python -m tests.differential",
        description=f"Compares our reading with that of peers. The comparisons: {', '.join(known)}.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones; all without a name")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="makes the same input again")
    parser.add_argument("--count", type=int, default=1_000, help="how many inputs are made for each")
    parser.add_argument("--all", action="store_true", help="show the differences that have a reason too")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"expected one of {', '.join(known)}, found {unknown[0]}")
    print(f"seed {given.seed}, count {given.count}")
    faults = 0
    for name in given.names or known:
        began = time.monotonic()
        found = told(name, comparison(name)(given.seed, given.count), shows_all=given.all)
        print(f"{name}: {found} without a reason, {time.monotonic() - began:.0f} s")
        faults += found
    return 1 if faults else 0


def told(name: str, differences: Iterator[str], *, shows_all: bool) -> int:
    """Prints the differences of a comparison; how many of them have no reason."""
    reasons: Counter[str] = Counter()
    faults = 0
    for difference in differences:
        if isinstance(difference, Explained):
            reasons[difference.reason] += 1
            if shows_all:
                print(f"{name} differs as it is meant to: {difference}")
            continue
        faults += 1
        if faults <= SHOWN:
            print(f"{name} DIFFERS: {difference}")
    if faults > SHOWN:
        print(f"{name}: {faults - SHOWN} more")
    for reason, count in reasons.most_common():
        print(f"{name}: {count} of: {reason}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
