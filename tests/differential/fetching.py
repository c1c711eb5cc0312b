"""The HTTP client beside requests, httpx and curl; ``tests.service.jobs.fetch.differential`` has the cases and the reasons."""

import warnings
from collections.abc import Iterator

from jobs.fetch.fetcher import Fetcher
from jobs.fetch.guard import parse_allow
from tests.differential import Explained
from tests.service.jobs.fetch import differential


def compare(seed: int, count: int) -> Iterator[str]:
    """What a peer says otherwise, and what one of 64 threads got that it does not get alone."""
    fetcher = Fetcher(allow=parse_allow("127.0.0.0/8"))
    with differential.cases(seed, count) as (site, made), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = {case.number: differential.ours(fetcher, site.url + case.path) for case in made}
            for case, peer, their in differential.differences(site, made, list(differential.PEERS), found):
                our = found[case.number]
                sentence = f"{', '.join(case.kinds)}: {case.wire[:300]!r}: ours {our}, {peer} {their}"
                reason = differential.reason_of(case, peer, our, their)
                yield Explained(sentence, f"{peer}: {reason}") if reason else sentence
            for case, our in differential.mixed(fetcher, site, made, 1, seed):
                if our != found[case.number]:
                    yield f"{', '.join(case.kinds)}: {case.wire[:300]!r}: alone {found[case.number]}, mixed {our}"
        finally:
            fetcher.close()
