"""Names are taken apart as they were made."""

from regions import names


def test_a_results_key_names_its_region_and_task_settled_or_not():
    assert names.result_of(names.result("us-east", "01T")) == ("us-east", "01T")
    assert names.result_of(names.result(names.settled("us-east"), "01T")) == ("us-east", "01T")
    assert names.result_of(names.result(names.HUB, "01T")) == (names.HUB, "01T")


def test_a_region_is_found_in_the_name_of_its_stream_and_of_its_queues():
    assert names.region_of_stream(names.out_stream("us-east")) == "us-east"
    for queue in (names.work_queue("us-east"), names.fast_queue("us-east")):
        assert names.region_of_queue(queue) == "us-east"
    for fast in (False, True):
        assert names.region_of(names.routing_key("us-east", fast=fast)) == "us-east"


def test_members_name_their_request_and_task():
    assert names.task_of_due(names.due_member("01R", "01T")) == ("01R", "01T")
    assert names.request_of_listed(names.listed_member("a/tenant", "01R")) == "01R"


def test_a_worker_is_found_in_the_name_of_its_hash():
    assert names.worker_of(names.rq_worker("us-east.worker.1.a")) == "us-east.worker.1.a"
