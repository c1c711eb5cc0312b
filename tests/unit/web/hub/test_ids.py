"""Ids: a task's tells its request's."""

import pytest
import ulid

from web.hub import ids


def test_a_tasks_id_tells_its_requests():
    request = ids.new()
    tasks = [ids.task(request, number) for number in range(1, ids.TASKS_MAX + 1)]
    assert len({request, *tasks}) == ids.TASKS_MAX + 1
    assert {ids.request_of(task) for task in tasks} == {request}
    assert tasks == sorted(tasks)


def test_requests_share_no_id_with_each_others_tasks():
    requests = [ids.new() for _ in range(5_000)]
    assert len({ids.request_of(ids.task(one, 1)) for one in requests}) == len(requests)


def test_an_id_has_the_time_that_it_was_made_at():
    before = ulid.ULID().milliseconds
    assert before <= ulid.ULID.from_str(ids.new()).milliseconds <= ulid.ULID().milliseconds


def test_what_is_no_id_is_refused():
    with pytest.raises(ValueError, match="26"):
        ids.request_of("soon")
