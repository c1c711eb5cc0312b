"""A short run of ``python -m tests.differential``: no difference to the peers without a reason."""

import pytest

from tests.differential import ALONE, Explained, __main__, comparison, names

SEED, COUNT = 11, 40  # another seed may find what has no reason yet: run the command


@pytest.mark.parametrize("name", [name for name in names() if name not in ALONE])
def test_we_read_what_peers_read(name):
    assert [one for one in comparison(name)(SEED, COUNT) if not isinstance(one, Explained)] == []


def test_a_difference_without_a_reason_is_a_fault(capsys):
    assert __main__.told("a", iter([Explained("x", "why"), Explained("y", "why")]), shows_all=False) == 0
    assert __main__.told("a", iter([Explained("x", "why"), "y"]), shows_all=True) == 1
    assert capsys.readouterr().out.splitlines() == [
        "a: 2 of: why", "a differs as it is meant to: x (why)", "a DIFFERS: y", "a: 1 of: why",
    ]  # fmt: skip


def test_the_command_refuses_a_comparison_that_there_is_not(capsys):
    with pytest.raises(SystemExit):
        __main__.main(["nothing"])
    assert "expected one of" in capsys.readouterr().err
