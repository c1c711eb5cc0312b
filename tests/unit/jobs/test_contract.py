"""Messages: what is written is what is read, and versions are held."""

import json

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


@pytest.mark.parametrize("version", [-1, contract.VERSION + 2, 99])
def test_another_version_is_refused_and_both_are_named(version):
    body = json.loads(contract.encode(task())) | {"v": version}
    with pytest.raises(
        contract.UnknownVersion, match=f"version {contract.VERSION - 1} to {contract.VERSION + 1}, found {version}"
    ):
        contract.decode_task(json.dumps(body).encode())


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
