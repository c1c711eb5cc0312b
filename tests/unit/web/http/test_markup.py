"""HTML of the console: what strangers write stays text."""

import pytest

from web.http.markup import join, tag


def test_texts_and_attributes_are_escaped():
    made = tag("p", '<script>alert("1")</script>', title='"><img src=x>', class_="muted")
    assert made.text == (
        '<p title="&quot;&gt;&lt;img src=x&gt;" class="muted">&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;</p>'
    )


def test_hidden_characters_are_shown():
    assert tag("td", "a\u202eb\u2066c\x00d\x1b[0m\ud800").text == r"<td>a\u202eb\u2066c\u0000d\u001b[0m\ud800</td>"
    assert tag("td", "line\n\tאבגד, 👩\u200d🔬").text == "<td>line\n\tאבגד, 👩\u200d🔬</td>"


def test_markup_is_nested_and_what_is_none_is_left_out():
    made = tag("ul", (tag("li", one, hidden=one == 2) for one in (1, 2)), [None, "x"], id=None, aria_label="n")
    assert made.text == '<ul aria-label="n"><li>1</li><li hidden>2</li>x</ul>'
    assert join(tag("br"), "a<b", 1.5).text == "<br>a&lt;b1.5"


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "JaVaScript:alert(1)", "data:text/html,x", " /x", "x:y", ""]
)
def test_a_link_leads_to_a_page_or_nowhere(address):
    assert tag("a", "x", href=address).text == "<a>x</a>"


def test_a_link_to_a_page_stays():
    for address in ("/sources", "#main", "?q=1", "https://example.org/a"):
        assert tag("a", "x", href=address).text == f'<a href="{address}">x</a>'


@pytest.mark.parametrize("name", ["onclick", "style", "onLoad"])
def test_scripts_and_styles_stand_in_files(name):
    with pytest.raises(ValueError, match="no inline script or style"):
        tag("a", "x", **{name: "x"})
