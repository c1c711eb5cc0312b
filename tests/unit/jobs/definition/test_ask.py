"""Addresses are expanded as RFC 6570 says, and as its library does."""

import itertools

import pytest
import uritemplate
from hypothesis import given
from hypothesis import strategies as st

from jobs.definition.ask import Ask

NAMES = ("a", "b_1", "C")
VALUES = (None, "", "x", "a/b&c=d", "100% ü~._-", [], ["x"], ["", "y,z"])
EXPRESSIONS = [
    f"{{{operator}{','.join(names)}}}"
    for operator in ("", "+", "#", ".", "/", ";", "?", "&")
    for names in (("a",), ("a", "b_1"), ("a", "b_1", "C"), ("a*",), ("b_1", "a:1"))
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_is_what_the_library_makes_of_it(expression):
    url = f"https://shop.example/x{expression}-ü"
    for values in itertools.product(VALUES, repeat=2):
        params = dict(zip(NAMES, (*values, "last"), strict=True))
        # An empty list is no value (RFC 6570, 2.3); the library forgets that in {a,b}.
        is_simple = expression[1:].rstrip("}").replace(",", "").replace("_", "").isalnum()
        defined = {name: None if is_simple and value == [] else value for name, value in params.items()}
        assert Ask(url=url).expand(params) == uritemplate.expand(url, defined)


@given(st.lists(st.sampled_from([*EXPRESSIONS, "/x", "-"]), max_size=4), st.text(max_size=6), st.text(max_size=6))
def test_an_address_is_what_the_library_makes_of_it(parts, first, second):
    url, params = f"https://shop.example/{''.join(parts)}", {"a": first, "b_1": [second, first]}
    assert Ask(url=url).expand(params) == uritemplate.expand(url, params)
