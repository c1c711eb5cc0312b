"""Our reading of answers beside that of requests, httpx and curl: ``python -m tests.service.jobs.fetch.differential --seed N``.

A case is an answer byte for byte: a head with odd lines, a framing, a coding, a redirect, cut somewhere or not. Each client asks
for it alone, and what they say is compared; then 64 threads ask for all of them through one fetcher, and each has to get what
it got alone. A difference that no entry of ``WANTED`` explains, a body of another case and a hang end with 1.
"""

import argparse
import random
import shutil
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import httpx
import requests

from jobs.errors import TaskError, TimedOut
from jobs.fetch.fetcher import Fetcher, Terms
from jobs.fetch.guard import parse_allow
from jobs.page import Request
from tests.service.jobs.fetch.made_answers import Case, Maker
from tests.service.jobs.fetch.origin import Origin, Spoken

SECONDS = 30.0
QUICK_SECONDS = 2.0  # some peers wait where they have been told all; who refuses is asked again, with SECONDS
THREADS = 64


class Said(NamedTuple):
    """How a client reads a case; without a status it refused the answer."""

    status: int = 0
    body: bytes = b""
    last: str = ""  # the header that stands last
    evil: bool = False  # a header that nobody sent

    def __str__(self) -> str:
        if not self.status:
            return "refused"
        return (
            f"{self.status} {self.body[:60]!r}{'…' if len(self.body) > 60 else ''} last={self.last!r}"
            + " EVIL" * self.evil
        )


REFUSED = Said()


# Clients


def ours(fetcher: Fetcher, url: str) -> Said:
    """Raises TimedOut, which nobody expects."""
    try:
        terms = Terms(deadline=time.monotonic() + 60, timeout_seconds=SECONDS, max_bytes=1_000_000, cancelled=bool)
        page = fetcher.fetch(Request(url=url), terms)
    except TimedOut:
        raise
    except TaskError:
        return REFUSED
    return Said(page.status, page.body, page.headers.get("x-last", ""), "x-evil" in page.headers)


def by_requests(url: str, seconds: float = QUICK_SECONDS) -> Said:
    try:
        with requests.Session() as session:
            session.trust_env = False
            found = session.get(url, timeout=seconds)
            return Said(found.status_code, found.content, found.headers.get("x-last", ""), "x-evil" in found.headers)
    except (requests.RequestException, ValueError):
        return REFUSED


def by_httpx(url: str, seconds: float = QUICK_SECONDS) -> Said:
    try:
        with httpx.Client(trust_env=False, verify=False, timeout=seconds, follow_redirects=True) as client:
            found = client.get(url)
            return Said(found.status_code, found.content, found.headers.get("x-last", ""), "x-evil" in found.headers)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return REFUSED


def by_curl(url: str, seconds: float = QUICK_SECONDS) -> Said:
    told = "\n%{http_code}\n%header{x-last}\n%header{x-evil}"
    command = [
        "curl",
        "-sgL",
        "--compressed",
        "--max-time",
        str(seconds),
        "--noproxy",
        "*",
        "-w",
        told,
        "--proto-redir",
        "=http",
        url,
    ]
    done = subprocess.run(command, capture_output=True, check=False)
    body, status, last, evil = done.stdout.rsplit(b"\n", 3)
    return Said(int(status), body, last.decode("latin-1"), bool(evil)) if done.returncode == 0 else REFUSED


PEERS: dict[str, Callable[..., Said]] = {"requests": by_requests, "httpx": by_httpx}
if shutil.which("curl"):
    PEERS["curl"] = by_curl


class Wanted(NamedTuple):
    """Where a peer may say otherwise, and why. ``how``: "refuses" what we read, "reads" what we refuse, reads "otherwise"."""

    kind: str
    peers: str
    how: str
    reason: str


HEADS = ("name", "blank before colon", "bare CR", "NUL", "fold")
WANTED = [
    # http.client, below requests
    Wanted("interim 102", "requests", "otherwise refuses", "takes any interim answer but 100 for the answer"),
    Wanted("interim 103", "requests", "otherwise refuses", "takes any interim answer but 100 for the answer"),
    Wanted(
        "cut",
        "requests",
        "reads otherwise",
        "a head, the last chunk or a compressed body that breaks off is whole for it",
    ),
    Wanted("no body", "requests", "otherwise refuses", "reads chunks after a 204 and a 304"),
    *[
        Wanted(kind, "requests", "otherwise refuses reads", "a parser for e-mail loses the lines after an odd one")
        for kind in HEADS
    ],
    Wanted("coding list", "requests", "otherwise refuses", "knows chunked only where nothing else stands there"),
    Wanted(
        "coding folded", "requests", "otherwise refuses reads", "knows chunked only where nothing else stands there"
    ),
    Wanted("other coding", "requests", "otherwise refuses reads", "reads a coding that it does not know as none"),
    Wanted(
        "no length",
        "requests",
        "reads otherwise",
        "reads on to the end where a length is none (RFC 9112, 6.3: an error)",
    ),
    Wanted(
        "lengths differ", "requests", "reads otherwise", "takes a body of one of several lengths, where it has none"
    ),
    Wanted("length twice", "requests", "refuses otherwise", "urllib3 refuses a length that is said twice"),
    Wanted(
        "bad chunk", "requests", "reads otherwise", "int() takes blanks, signs and 0x, and no line end is looked at"
    ),
    Wanted("coding and length", "requests", "otherwise refuses reads", "urllib3 looks at the length too"),
    # h11, below httpx
    *[Wanted(kind, "httpx", "refuses", "h11 refuses the whole answer for a line") for kind in HEADS],
    Wanted("coding list", "httpx", "refuses", "h11 knows chunked only alone"),
    Wanted("coding folded", "httpx", "refuses", "h11 knows chunked only alone"),
    Wanted("other coding", "httpx", "refuses", "h11 knows chunked only alone"),
    Wanted("no body", "httpx", "refuses", "h11 looks at the lengths of a 304, which has none"),
    Wanted("cut", "httpx", "reads", "a deflate stream that breaks off is whole for it"),
    # curl
    Wanted("lengths differ", "curl", "reads", "takes the first of a list"),
    Wanted("no length", "curl", "reads", "takes the digits that a length begins with"),
    Wanted("other coding", "curl", "reads", "undoes chunked once where it stands twice (RFC 9112, 6.1: it must not)"),
    Wanted("more", "curl", "refuses", "what follows a compressed body is padding, as for gzip and browsers"),
    Wanted("NUL", "curl", "refuses", "refuses it, where RFC 9110 (5.5) lets one replace it"),
    Wanted("name", "curl", "refuses", "refuses a line without a colon"),
    Wanted("cut", "curl", "reads", "a head that breaks off is whole for it"),
    Wanted("bad chunk", "curl", "reads", "takes a line end of chunks without its CR, and llhttp does not"),
    Wanted("coding folded", "curl", "refuses otherwise reads", "does not unfold it"),
    # Redirects
    Wanted("characters", "requests httpx curl", "otherwise refuses", "escapes as browsers do: by UTF-8, in upper case"),
    Wanted("dots", "httpx curl", "otherwise", "where dots are escaped, they are dots (WHATWG URL)"),
    Wanted("blanks", "requests httpx", "otherwise refuses", "blanks around an address are none of it (RFC 9110, 5.5)"),
    Wanted("scheme", "requests httpx curl", "otherwise refuses reads", "relative to the same scheme (RFC 3986, 5.2.2)"),
    Wanted("no location", "requests httpx curl", "reads", "a redirect to nowhere is no page"),
]


def how(our: Said, their: Said) -> str:
    if not our.status:
        return "reads"
    return "otherwise" if their.status else "refuses"


def reason_of(case: Case, peer: str, our: Said, their: Said) -> str:
    """Why a peer may say otherwise, "" where nothing explains it."""
    for one in WANTED:
        if one.kind in case.kinds and peer in one.peers.split() and how(our, their) in one.how.split():
            return one.reason
    return ""


def is_wanted(case: Case, peer: str, our: Said, their: Said) -> bool:
    return bool(reason_of(case, peer, our, their))


@contextmanager
def cases(seed: int, count: int) -> Iterator[tuple[Origin, list[Case]]]:
    """The cases of a seed, and a site that answers them."""
    known: dict[str, Case] = {}

    def say(spoken: Spoken) -> None:
        case = known.get(spoken.target)
        if case is None:  # where a redirect led to
            spoken.answer(spoken.target.encode("latin-1"))
            return
        spoken.say(case.wire)
        if case.hangs_up:
            spoken.hang_up()

    site = Origin(say)
    maker = Maker(seed, site.url)
    made = [maker.case(number) for number in range(1, count + 1)]
    known.update({case.path: case for case in made})
    try:
        yield site, made
    finally:
        site.stop()


def differences(
    site: Origin, made: Sequence[Case], peers: Sequence[str], found: dict[int, Said]
) -> Iterator[tuple[Case, str, Said]]:
    """Each peer that reads a case differently from ``found``."""
    with ThreadPoolExecutor(8) as pool:
        for peer in peers:
            for case, their in zip(made, pool.map(PEERS[peer], [site.url + case.path for case in made]), strict=True):
                our = found[case.number]
                if their == our:
                    continue
                if not their.status and not is_wanted(case, peer, our, their):
                    their = PEERS[peer](site.url + case.path, SECONDS)  # noqa: PLW2901 - it may have been slow
                if their != our:
                    yield case, peer, their


def mixed(fetcher: Fetcher, site: Origin, made: Sequence[Case], rounds: int, seed: int) -> Iterator[tuple[Case, Said]]:
    """The results of the cases, fetched by 64 threads in any order."""
    asked = [case for case in made for _ in range(rounds)]
    random.Random(seed).shuffle(asked)
    with ThreadPoolExecutor(THREADS) as pool:
        yield from zip(asked, pool.map(lambda case: ours(fetcher, site.url + case.path), asked), strict=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=10, help="how often the threads ask for each case")
    parser.add_argument("--all", action="store_true", help="show the differences that are wanted too")
    arguments = parser.parse_args()
    print(
        f"seed {arguments.seed}, {arguments.count} cases; beside {', '.join(PEERS)}"
        + ("" if "curl" in PEERS else "; there is no curl here")
    )
    warnings.simplefilter("ignore")
    faults = 0
    with cases(arguments.seed, arguments.count) as (site, made):
        fetcher = Fetcher(allow=parse_allow("127.0.0.0/8"))
        found = {case.number: ours(fetcher, site.url + case.path) for case in made}
        counts: Counter[str] = Counter()
        for case, peer, their in differences(site, made, list(PEERS), found):
            our = found[case.number]
            wanted = is_wanted(case, peer, our, their)
            counts[f"{peer}: {'wanted' if wanted else 'NOT WANTED'}"] += 1
            faults += not wanted
            if not wanted or arguments.all:
                print(
                    f"{'wanted' if wanted else 'DIFFERS'} {peer} {how(our, their)}: {', '.join(case.kinds)}\n  {case.wire[:300]!r}{' then ends' * case.hangs_up}\n  ours {our}\n  {peer} {their}"
                )
        asked = 0
        for case, our in mixed(fetcher, site, made, arguments.rounds, arguments.seed):
            asked += 1
            if our != found[case.number]:
                faults += 1
                print(
                    f"MIXED: {', '.join(case.kinds)}\n  {case.wire[:300]!r}\n  alone {found[case.number]}\n  mixed {our}"
                )
        fetcher.close()
    for name, count in sorted(counts.items()):
        print(f"{name}: {count}")
    print(f"{asked} mixed fetches by {THREADS} threads; {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
