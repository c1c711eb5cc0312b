"""What sources allow, as claims read it."""

from pathlib import Path

from jobs.definition.model import limits_of
from jobs.definition.read import read


def definition(folder: Path, name: str, url: str, limits: str, before: str = ""):
    path = folder / f"{name}.toml"
    path.write_text(
        f"title = 'A'\nurl = '{url}'\nformat = 'json'\n{before}\n[fields]\nid = {{}}\n[limits]\n{limits}\n",
        encoding="utf-8",
    )
    return read(path)


def test_a_host_allows_what_the_strictest_of_its_sources_does(tmp_path):
    found = limits_of(
        [
            definition(tmp_path, "a", "https://x.example/a", "rate = '2/s'"),
            definition(tmp_path, "b", "https://x.example/b", "rate = '5/s'\nconcurrency = 3"),
            definition(tmp_path, "c", "https://y.example/{?q}", "concurrency = 20", "[params.q]"),
        ]
    )
    assert found == {
        "a": "8 500.000", "b": "3 200.000", "c": "20 0.000",
        "https://x.example:443": "3 500.000", "https://y.example:443": "20 0.000",
    }  # fmt: skip


def test_the_page_before_belongs_to_a_host_too(tmp_path):
    before = "[before]\nurl = 'https://login.example/'\n[before.fields]\ntoken = 'input'"
    found = limits_of([definition(tmp_path, "a", "https://x.example/a", "rate = '30/min'", before)])
    assert found["https://login.example:443"] == found["https://x.example:443"] == "8 2000.000"


def test_a_host_that_params_decide_is_known_by_its_source_alone(tmp_path):
    asked = definition(
        tmp_path, "a", "{+url}", "rate = '2/s'", "[params]\nurl = {required = true, hosts = ['*.example']}"
    )
    assert limits_of([asked]) == {"a": "8 500.000"}
