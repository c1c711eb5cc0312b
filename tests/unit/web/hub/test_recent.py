"""How long tasks took, as buckets that add up over gateways."""

import pytest

from web.hub import ids
from web.hub.recent import OCTAVE, TOOK_MAX_MS, bound_ms, bucket_of, quantile, took_ms


@pytest.mark.parametrize("ms", [0, 1, 2, 3, 7, 64, 100, 999, 1_000, 4_096, 30_000, 300_000, TOOK_MAX_MS])
def test_the_bound_of_a_bucket_is_the_duration_or_at_most_a_twelfth_more(ms):
    bound = bound_ms(bucket_of(ms))
    assert max(ms, 1) <= bound * (1 + 1e-9)
    assert bound <= max(ms, 1) * 2 ** (1 / OCTAVE) * (1 + 1e-9)


def test_the_p95_is_what_95_of_100_tasks_did_not_exceed():
    counts = {bucket_of(100): 95, bucket_of(2_000): 5}
    assert quantile(counts, 0.95) == pytest.approx(100, rel=0.1)
    assert quantile({bucket_of(100): 94, bucket_of(2_000): 6}, 0.95) == pytest.approx(2_000, rel=0.1)
    assert quantile({}, 0.95) is None


def test_a_task_took_from_the_time_in_its_id_to_its_end():
    request = ids.new()
    task = ids.task(request, 3)
    assert took_ms(task, _accepted_ms(request) + 250) == 250
    assert took_ms(task, 0) == 0  # a region's clock is behind: nothing takes less than no time


@pytest.mark.parametrize(
    ("task", "finished_ms"), [("T1", 5), ("", 5), ("!" * 26, 5), ("01M8KQF9B27MBDKSK410AHNK00", 10**14)]
)
def test_what_can_not_be_right_has_no_duration(task, finished_ms):
    assert took_ms(task, finished_ms) is None


def _accepted_ms(request: str) -> int:
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    number = 0
    for letter in request[:10]:
        number = number * 32 + digits.index(letter)
    return number
