"""Addresses are expanded as RFC 6570 says, and as its library does."""

import uritemplate
from hypothesis import given
from hypothesis import strategies as st

from jobs.definition.ask import Ask

NAMES = ("a", "b", "c_1", "D")
expressions = st.builds(
    lambda operator, names: f"{{{operator}{','.join(names)}}}",
    st.sampled_from(["", "+", "#", ".", "/", ";", "?", "&"]),
    st.lists(
        st.builds("".join, st.tuples(st.sampled_from(NAMES), st.sampled_from(["", "", "", "*", ":3"]))),
        min_size=1,
        max_size=3,
    ),
)
templates = st.lists(st.one_of(expressions, st.sampled_from(["/x", "-", "?y=1", "a%20b", "ü"])), max_size=5)
texts = st.one_of(st.text(max_size=6), st.sampled_from(["a/b&c", "100%", " ", "ü", "~._-"]))
given_params = st.dictionaries(st.sampled_from(NAMES), st.one_of(st.none(), texts, st.lists(texts, max_size=3)))


@given(templates, given_params)
def test_an_address_is_what_the_library_makes_of_it(parts, params):
    url = f"https://shop.example/{''.join(parts)}"
    assert Ask(url=url).expand(params) == uritemplate.expand(url, params)
