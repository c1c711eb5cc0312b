"""The differences between two lists of records, by record and field. Pure; used for samples and replays.

    differences(expected, found) → _aligned (which record is which) → _fields (where the two differ) → Difference

Records are JSON values. Two values are the same when their JSON text is: 1, 1.0, true and "1" all differ.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final

Record = Mapping[str, Any]
# Indexes from 0 in the expected and the found list; None when a list has no such record.
Pair = tuple[int | None, int | None]

SHOWN_OF_A_FIELD: Final = 3
VALUE_WIDTH: Final = 120


class _Nothing:
    """Stands for a record or a field that does not exist. null is a value."""


NOTHING: Final = _Nothing()


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of one record that differs; ``field`` is "" when a whole record is missing or unexpected.

    ``record`` counts from 1, in the expected list, or in the found list when nothing was expected.
    """

    record: int
    field: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        if self.expected is NOTHING and not self.field:
            return f"record {self.record}: one more than expected: {shown(self.found)}"
        if self.found is NOTHING and not self.field:
            return f"record {self.record}: expected, but missing: {shown(self.expected)}"
        return f"record {self.record}: {self.field}: expected {shown(self.expected)}, found {shown(self.found)}"


def differences(expected: Sequence[Record], found: Sequence[Record]) -> list[Difference]:
    """All differences, in the order of the expected records. Empty when both lists are the same, including their order."""
    result: list[Difference] = []
    for before, after in _aligned(expected, found, range(len(expected)), range(len(found))):
        if before is None:
            assert after is not None
            result.append(Difference(after + 1, "", NOTHING, found[after]))
        elif after is None:
            result.append(Difference(before + 1, "", expected[before], NOTHING))
        else:
            pairs = _fields(expected[before], found[after], "")
            result += [Difference(before + 1, field, old, new) for field, old, new in pairs]
    return result


def lines(found: Sequence[Difference], *, every: bool = False) -> list[str]:
    """The differences for people: without ``every`` only the first three of each field, and how many more there are."""
    seen: Counter[str] = Counter()
    texts = []
    for one in found:
        kind = _kind(one)
        seen[kind] += 1
        if every or seen[kind] <= SHOWN_OF_A_FIELD:
            texts.append(str(one))
    left = {kind: count - SHOWN_OF_A_FIELD for kind, count in seen.items() if count > SHOWN_OF_A_FIELD}
    if not every:
        texts += [f"and {count} more of {kind}" for kind, count in left.items()]
    return texts


def as_json(found: Sequence[Difference]) -> list[dict[str, Any]]:
    """The differences for programs. A side that does not exist has no member."""
    texts = []
    for one in found:
        sides = {"expected": one.expected, "found": one.found}
        texts.append(
            {"record": one.record, "field": one.field}
            | {side: value for side, value in sides.items() if value is not NOTHING}
        )
    return texts


def shown(value: Any) -> str:
    """A value for one line: JSON, cut short."""
    if value is NOTHING:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_WIDTH else f"{text[: VALUE_WIDTH - 1]}…"


def _kind(one: Difference) -> str:
    if one.field:
        return one.field
    return "records that were not expected" if one.expected is NOTHING else "records that are missing"


def _key(value: Any) -> str:
    return "" if value is NOTHING else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _aligned(expected: Sequence[Record], found: Sequence[Record], befores: range, afters: range) -> Iterator[Pair]:
    """Pairs up the records, by the values that distinguish most of them. Within the gaps it repeats that with other values."""
    old, new = _telling([expected[one] for one in befores], [found[one] for one in afters])
    for tag, a, b, c, d in SequenceMatcher(None, old, new).get_opcodes() if old else ():
        if tag == "equal":
            yield from zip(befores[a:b], afters[c:d], strict=True)
        else:
            yield from _aligned(expected, found, befores[a:b], afters[c:d])
    if not old:  # pair by position
        yield from zip(befores, afters, strict=False)
        both = min(len(befores), len(afters))
        yield from ((one, None) for one in befores[both:])
        yield from ((None, one) for one in afters[both:])


def _telling(expected: Sequence[Record], found: Sequence[Record]) -> tuple[list[str], list[str]]:
    """The texts of whole records, or of one field, that have the most values in common. Empty when nothing is in common.

    On a tie, whole records win over fields, and earlier fields over later ones.
    """
    best: tuple[list[str], list[str]] = [], []
    most = 0
    for name in ["", *(expected[0] if expected else ())]:
        old = [_key(one.get(name, NOTHING) if name else one) for one in expected]
        new = [_key(one.get(name, NOTHING) if name else one) for one in found]
        common = len(set(old) & set(new))
        if common > most:
            best, most = (old, new), common
    return best


def _fields(old: Any, new: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """The places where two values differ. Looks into objects, and into lists of the same length."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(name for name in new if name not in old)]:
            at = f"{where}.{name}" if where else name
            yield from _fields(old.get(name, NOTHING), new.get(name, NOTHING), at)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _fields(one, other, f"{where}[{index}]")
    elif old is NOTHING or new is NOTHING or _key(old) != _key(new):
        yield where, old, new
