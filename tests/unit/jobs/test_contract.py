"""Messages: what is written is what is read, and versions are held."""

import json

import msgspec
import pytest

from jobs import contract, errors


def test_every_type_of_error_is_of_one_tree_and_has_a_known_origin():
    assert len(set(errors.TYPES)) == len(errors.TYPES)
    for kind in errors.TaskError.__subclasses__():
        assert kind.type in errors.TYPES
        assert kind.origin in errors.ORIGINS


def task(**changes):
    fields = {
        "task": "t",
        "request": "r",
        "source": "s",
        "region": "fra",
        "accepted_ms": 1,
        "deadline_ms": 2,
        "expires_ms": 3,
    }
    return contract.Task(**{**fields, **changes})


def test_unknown_fields_of_a_neighbouring_version_are_ignored():
    body = json.loads(contract.encode(task(params={"a": 1})))
    body |= {"v": contract.VERSION + 1, "new": True}
    assert contract.decode_task(json.dumps(body).encode()).params == {"a": 1}


CANCEL = contract.Cancel(task="t", request="r", deadline_ms=2)


@pytest.mark.parametrize("version", range(contract.VERSION - 1, contract.VERSION + 2))
def test_the_versions_of_neighbours_are_read(version):
    for message, decode in ((task(), contract.decode_task), (CANCEL, contract.decode_cancel)):
        body = json.loads(contract.encode(message)) | {"v": version}
        assert decode(json.dumps(body).encode()) == msgspec.structs.replace(message, v=version)


@pytest.mark.parametrize("version", [contract.VERSION - 2, contract.VERSION + 2, 99])
def test_another_version_is_refused_and_both_are_named(version):
    for what, message, decode in (("task", task(), contract.decode_task), ("cancel", CANCEL, contract.decode_cancel)):
        body = json.loads(contract.encode(message)) | {"v": version}
        with pytest.raises(contract.UnknownVersion) as refused:
            decode(json.dumps(body).encode())
        least, most = contract.VERSION - 1, contract.VERSION + 1
        assert str(refused.value) == f"expected a {what} of version {least} to {most}, found {version}"


def test_what_a_message_leaves_out_has_its_usual_value():
    """Messages of a version that did not know it, and results of a region, of which only some say more."""
    least = {key: getattr(task(), key) for key in ("v", "task", "request", "source", "region")}
    times = {"accepted_ms": 1, "deadline_ms": 2, "expires_ms": 3}
    found = contract.decode_task(json.dumps(least | times).encode())
    assert msgspec.to_builtins(found) == {
        **least, **times, "params": {}, "url": "", "host": "", "definition": "", "max_age": 0.0, "sync": False,
    }  # fmt: skip
    assert found.traced == {}
    assert not found.is_sampled
    result = msgspec.json.decode(b'{"task":"t","source":"s","region":"fra","status":"succeeded"}', type=contract.Result)
    assert (result.attempts, result.count, result.partial, result.cached, result.stale) == (1, 0, False, False, False)
    error = contract.Error(type="internal", message="m", origin="hub")
    assert (error.retryable, error.retry_after, error.http_status) == (False, None, None)
    run = msgspec.json.decode(b'["s","0a1b"]', type=contract.Run)
    assert (run.partial, run.own, run.gaps) == (False, True, {})


@pytest.mark.parametrize(("flags", "is_sampled"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_a_task_has_the_trace_of_its_client(flags, is_sampled):
    traced = task(traceparent=f"00-{'a' * 32}-{'b' * 16}-{flags}")
    assert traced.traced == {"trace_id": "a" * 32}
    assert traced.is_sampled == is_sampled


def test_a_way_through_a_region_travels_as_lists():
    """Regions and gateways of other versions read them by place."""
    attempts = [
        contract.Attempt(1, 20, 30, "fra.w1", contract.LOST, ""),
        contract.Attempt(2, 40, 0, "fra.w2", "", "", 7),
    ]
    run = contract.Run(
        source="s", definition="0a1b", error="timeout", origin="target", host="https://x:443", rows=1, own=False
    )
    assert contract.encode_trail(contract.Trail(10, attempts)) == (
        b'[10,[[1,20,30,"fra.w1","lost","",0],[2,40,0,"fra.w2","","",7]],null]'
    )
    assert contract.encode_trail(contract.Trail(10, [], run)) == (
        b'[10,[],["s","0a1b","timeout","target","https://x:443",1,0,0,0,0,false,false,{},0,0]]'
    )


def test_an_answer_is_as_old_as_it_says_to_the_millisecond_and_never_younger_than_nothing():
    at_ms = 1_795_493_640_007
    assert contract.age_seconds(None, at_ms) == 0.0
    assert contract.age_seconds(contract.rfc3339(at_ms), at_ms) == 0.0
    assert contract.age_seconds(contract.rfc3339(at_ms), at_ms + 61_234) == 61.234
    assert contract.age_seconds(contract.rfc3339(at_ms), at_ms - 1) == 0.0
    assert contract.age_seconds("1970-01-01T00:00:00.0004Z", 1_000) == 1.0


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[]", b"{}", b'{"v":1}', b'{"v":"1"}', b"null", b'{"v":1,"task":5}']
)
def test_what_is_no_task_is_a_value_error(body):
    with pytest.raises(ValueError):
        contract.decode_task(body)
    with pytest.raises(ValueError):
        contract.decode_cancel(body)


def test_times_are_rfc_3339_in_utc():
    assert contract.rfc3339(1_795_493_640_007) == "2026-11-24T04:14:00.007Z"
