"""The plan of chaos: by the seed alone, every kind in it, and peace between its rounds."""

from collections import Counter

import pytest

from scripts.chaos import faults
from scripts.chaos.plan import (
    ENDS,
    FORMS,
    KINDS,
    LONG_WAVE_SECONDS,
    MOVES,
    PEACE_SECONDS,
    PINNED,
    SCALE_MAX,
    STUCK,
    TROUBLES,
    WARM_SECONDS,
    WAVE_PAGE_SECONDS,
    WAVE_SECONDS,
    WAVE_TASKS,
    Fault,
    kinds_of,
    make,
    regions_of,
)  # fmt: skip
from scripts.chaos.points import POINTS, links

REGIONS = ("fra", "nyc", "sin")


def plan(seed: int = 7, *, tasks: int = 2_000, seconds: float = 300.0, kinds=tuple(KINDS)):
    return make(seed, tasks=tasks, seconds=seconds, regions=REGIONS, kinds=kinds)


def test_the_same_seed_gives_the_same_plan_and_another_another():
    assert plan() == plan()
    assert plan().digest == plan().digest != plan(8).digest


@pytest.mark.parametrize("seconds", [60.0, 300.0, 1200.0])
def test_every_kind_of_fault_is_in_it(seconds):
    assert {fault.kind for fault in plan(seconds=seconds).faults} == set(KINDS)


def test_a_short_run_has_each_kind_once():
    found = plan(seconds=40.0).faults
    assert len(found) == len(KINDS)
    assert {fault.kind for fault in found[:2]} == {kind for kind, how in KINDS.items() if how.must_hit}


def test_there_is_peace_after_every_round():
    found = sorted(plan(seconds=600.0).faults, key=lambda fault: fault.at)
    gaps, end = [], found[0].at
    for fault in found:
        gaps.append(fault.at - end)
        end = max(end, fault.at + fault.seconds)
    assert sum(gap > PEACE_SECONDS - 10 for gap in gaps) >= 8


def test_every_number_is_asked_for_once_and_about_as_many_as_were_wanted():
    numbers = [task.number for post in plan().posts for task in post.tasks]
    assert len(numbers) == len(set(numbers)) == 2_000
    assert {post.way for post in plan().posts} == {"poll", "wait", "events", "sync", "records"}


def test_no_deadline_is_before_its_pages_can_be_there():
    for seed in (7025, *range(20)):
        for post in plan(seed, tasks=3_000).posts:
            assert post.deadline >= max(one.seconds for one in post.tasks) + 2


def test_every_kind_can_be_done_to_each_of_its_targets():
    known = {link.name for link in links(REGIONS)}
    parts = {
        "gateway",
        "rabbitmq",
        "hub",
        "store",
        "clients",
        *(f"{part}-{one}" for part in ("workers", "bridge", "redis", "credentials", "region") for one in REGIONS),
    }
    points = {point.name for point in POINTS}
    assert set(faults._HOW) == set(KINDS)
    for kind in KINDS.values():
        for target in kind.targets(REGIONS):
            point, _, link = target.rpartition(" ")
            assert target in known | parts or (point in points and link in known)


def test_kinds_are_named_whole_or_by_their_beginning():
    assert kinds_of(["cut", "kill"]) == ["cut", *(kind for kind in KINDS if kind.startswith("kill-"))]
    assert kinds_of([]) == list(KINDS)
    with pytest.raises(ValueError, match=r"expected kinds of faults \(kill-worker, .*\), found 'burn'"):
        kinds_of(["burn"])


def test_a_fault_touches_its_regions_tasks_or_everybodys():
    assert regions_of(Fault(0, "cut", "bridge-fra>redis-fra", 0), REGIONS) == {"fra"}
    assert regions_of(Fault(0, "swallow", "ship workers-nyc>hub", 0), REGIONS) == {"nyc"}
    assert regions_of(Fault(0, "cut", "gateway>hub", 0), REGIONS) == set(REGIONS)
    assert regions_of(Fault(0, "cut", "gateway>store", 0), REGIONS) == set()
    assert regions_of(Fault(0, "kill-store", "store", 0), REGIONS) == set()
    assert regions_of(Fault(0, "hostile-region", "credentials-fra", 0), REGIONS) == set()


def test_the_load_has_troubles_cancels_and_unreadable_messages_and_obliges_nine_tenths_to_succeed():
    found = plan(tasks=10_000)
    tasks = [(task, post) for post in found.posts for task in post.tasks]
    assert {task.trouble for task, _ in tasks} == {*TROUBLES, STUCK, MOVES, PINNED}
    cancelled = [post for post in found.posts if post.cancel_after is not None]
    assert len(cancelled) == 40
    assert all(task.seconds >= post.cancel_after for post in cancelled for task in post.tasks)
    assert Counter(letter.form for letter in found.letters) == dict.fromkeys(FORMS, 20)
    assert len({letter.name for letter in found.letters}) == 100
    obliged = sum(
        post.deadline >= 200 and post.cancel_after is None and task.trouble not in ENDS for task, post in tasks
    )
    assert obliged >= 0.92 * len(tasks)


def test_with_scale_the_load_comes_in_waves_with_quiet_between_and_an_operator_asks_every_region():
    found = make(7, tasks=2_000, seconds=120.0, regions=REGIONS, kinds=["cut"], scaled=True)
    waves = [WARM_SECONDS + n * WAVE_SECONDS for n in range(4)]
    uncancelled = [post for post in found.posts if post.cancel_after is None]
    assert all(any(0 <= post.at - wave <= LONG_WAVE_SECONDS for wave in waves) for post in uncancelled)
    for wave in waves:
        slow = Counter(
            task.region
            for post in found.posts
            if post.at == wave
            for task in post.tasks
            if task.seconds == WAVE_PAGE_SECONDS
        )
        assert all(slow[region] >= WAVE_TASKS for region in REGIONS)
    asked = [(one.region, one.number) for one in found.scalings]
    assert Counter(asked) == {(region, number): 2 for region in REGIONS for number in (str(SCALE_MAX), "auto")}
    assert len({task.number for post in found.posts for task in post.tasks}) == 2_000
    assert plan().scalings == []
