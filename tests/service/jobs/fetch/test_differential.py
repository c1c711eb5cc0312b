"""A short run of ``python -m tests.service.jobs.fetch.differential``, which has the other clients and what is wanted."""

import warnings

from tests.service.jobs.fetch import differential

SEED, COUNT, ROUNDS = 11, 120, 4  # another seed may find what no entry of WANTED explains: run the command


def test_answers_are_read_as_other_clients_read_them_and_none_gets_anothers_body(fetcher):
    peers = list(differential.PEERS)
    print(f"beside {', '.join(peers)}")
    with differential.cases(SEED, COUNT) as (site, made), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = fetcher()
        found = {case.number: differential.ours(one, site.url + case.path) for case in made}
        told = [
            (case, peer, their, found[case.number])
            for case, peer, their in differential.differences(site, made, peers, found)
        ]
        unwanted = [case for case in told if not differential.is_wanted(case[0], case[1], case[3], case[2])]
        mixed = list(differential.mixed(one, site, made, ROUNDS, SEED))
    assert unwanted == []
    assert len(told) > COUNT // 10  # the others are asked, and differ where that is wanted
    assert [(case, said) for case, said in mixed if said != found[case.number]] == []
    assert len(mixed) == COUNT * ROUNDS
