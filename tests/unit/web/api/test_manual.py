"""The pages that explain the interface: they show all of the document and all problems, and load nothing."""

import json
import re
from html.parser import HTMLParser

import pytest

from regions.settings import Limits
from web.api import manual, openapi
from web.api.problem_types import TYPES
from web.http.answer import Answer
from web.http.problems import Problem

LIMITS = Limits()
DOCUMENT = json.loads(openapi.document(LIMITS))


class Asking:
    """A call with an Accept header."""

    def __init__(self, accept: str = "") -> None:
        self.accept = accept

    def header(self, name: str) -> str:
        return self.accept if name == "Accept" else ""


class Page(HTMLParser):
    """The tags of a page, its ids, and where its links lead."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(answer.body.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value for name, value in attrs if name == "id"]
        self.links |= {value for name, value in attrs if name == "href"}

    def handle_data(self, data):
        self.text += data


def every_page() -> list[Answer]:
    pages = [manual.docs(LIMITS), manual.all_problems(Asking())]
    for type_ in TYPES:
        *_, parent, kind = type_.split("/")
        pages.append((manual.task_problem if parent == "task" else manual.problem)(Asking(), kind))
    return pages


def test_pages_load_nothing_and_run_nothing():
    for answer in every_page():
        page, headers = Page(answer), dict(answer.headers)
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert not page.tags & {"script", "img", "link", "iframe", "form", "object", "base"}
        assert not page.attributes & {"src", "style", "onclick", "onload"}
        assert all(link.startswith(("/", "#")) for link in page.links)


def test_every_link_leads_to_a_page_or_a_place_that_is_there():
    for answer in every_page():
        page = Page(answer)
        assert len(set(page.ids)) == len(page.ids)
        for link in page.links:
            there = link in TYPES or link in DOCUMENT["paths"] or link.removeprefix("#") in page.ids
            assert there, link


def test_docs_show_every_call_parameter_schema_member_and_header():
    text = Page(manual.docs(LIMITS)).text
    for path, item in DOCUMENT["paths"].items():
        assert path in text
        for method, call in item.items():
            if method != "parameters":
                assert call["summary"].replace("`", "") in text
                assert all(one["name"] in text for one in call["parameters"])
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert name in text
        assert all(member in text for member in schema["properties"])
    assert all(name in text for name in DOCUMENT["components"]["headers"])
    assert "`" not in text


def test_style_is_the_one_that_the_policy_permits():
    """A browser hashes what stands between the tags."""
    from base64 import b64encode
    from hashlib import sha256

    answer = manual.docs(LIMITS)
    style = re.search(r"<style>(.*?)</style>", answer.body.decode(), re.DOTALL)[1]
    assert b64encode(sha256(style.encode()).digest()).decode() in dict(answer.headers)["Content-Security-Policy"]


@pytest.mark.parametrize("type_", TYPES)
def test_page_of_a_problem_says_what_to_do_and_shows_an_example(type_):
    *_, parent, kind = type_.split("/")
    handler = manual.task_problem if parent == "task" else manual.problem
    found = json.loads(handler(Asking("application/json"), kind).body)
    assert (found["type"], found["example"]["type"]) == (type_, type_)
    assert found["example"]["status"] in found["statuses"]
    text = Page(handler(Asking("text/html"), kind)).text
    for part in (type_, found["title"], found["remedy"].replace("`", ""), found["example"]["detail"].split('"')[0]):
        assert part in text


@pytest.mark.parametrize(
    ("accept", "is_json"), [("", False), ("*/*", False), ("text/html,*/*;q=0.8", False), ("application/json", True)]
)
def test_people_get_html_and_programs_json(accept, is_json):
    answer = manual.problem(Asking(accept), "invalid")
    assert dict(answer.headers)["Content-Type"].startswith("application/json" if is_json else "text/html")
    assert dict(answer.headers)["Vary"] == "Accept"


def test_unknown_problem_is_not_found():
    with pytest.raises(Problem, match="/problems has all"):
        manual.problem(Asking(), "no-such")
