"""What `python -m tests.mutation` is told stands in the checkout: its files, its tests, and the lines of what is equivalent."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "mutation"
TARGETS = tomllib.loads((HERE / "targets.toml").read_text())["target"]
EQUIVALENT = tomllib.loads((HERE / "equivalent.toml").read_text()).get("equivalent", [])


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target["path"])
def test_a_mutated_file_and_its_tests_are_there(target) -> None:
    assert [path for path in (target["path"], *target["tests"]) if not (ROOT / path).exists()] == []


def test_each_equivalent_mutant_names_a_line_of_a_mutated_file_and_a_reason() -> None:
    paths = {target["path"] for target in TARGETS}
    paths |= {str(file.relative_to(ROOT)) for path in paths for file in (ROOT / path).glob("*.lua")}
    faults = []
    for one in EQUIVALENT:
        lines = {line.strip() for line in (ROOT / one["path"]).read_text().splitlines()}
        if one["path"] not in paths or one["was"] not in lines or one["was"] == one["now"] or not one["reason"].strip():
            faults.append(one)
    assert faults == []


def test_a_mutant_meets_quick_tests_of_all_files_rather_than_slow_ones_of_the_closest() -> None:
    pytest.importorskip("cosmic_ray")
    from tests.mutation.forks import Seen
    from tests.mutation.mutants import Mutant
    from tests.mutation.run import CHOSEN_SECONDS, Target, choose

    quick, slow, starts = (
        Seen(1.0, {"a.py": [7]}),
        Seen(CHOSEN_SECONDS / 2, {"a.py": [7]}),
        Seen(1.0, {}, starts=True),
    )
    seen = {
        "close::slow1": slow,
        "close::slow2": slow,
        "close::quick": quick,
        "far::starts": starts,
        "far::quick": quick,
    }
    target = Target("a.py", ["close", "far"], {**seen, "far::elsewhere": Seen(1.0, {"a.py": [8]})})
    mutant = Mutant("a.py", 7, "AddNot", "was", "now", "text", "place", "key")
    assert choose(target, mutant) == ["close::quick", "close::slow1", "far::quick", "far::starts"]
    target.killers["place"]["far::quick"] += 1
    assert choose(target, mutant)[0] == "far::quick"
    endless = Target("a.py", ["close"], {"close::slow": Seen(2 * CHOSEN_SECONDS, {"a.py": [7]})})
    assert choose(endless, mutant) == ["close::slow"]


def test_a_statement_of_lua_is_dropped_whole_also_if_it_has_several_lines_or_is_an_else():
    pytest.importorskip("cosmic_ray")
    from tests.mutation.mutants import mutants

    source = """
local status =
  unpack(redis.call("HMGET", key, "a"))
if status then redis.call("DEL", key)
elseif other then wake(key)
else forget(key) end
redis.call("HSET", key, "a)", (b or ""),
  "c", d)
account()
return 1
"""
    dropped = [one.text for one in mutants("x.lua", source) if one.operator == "Lua drop"]
    parts = ['redis.call("HSET", key, "a)", (b or ""),\n  "c", d)', "account()", "wake(key)", "forget(key)"]
    assert sorted(dropped) == sorted(source.replace(part, "") for part in parts)
