"""Documents that list things are held to the code."""

import ast
import re
from collections import Counter
from pathlib import Path
from typing import get_args, get_origin
from unittest.mock import MagicMock

import click
import msgspec
import pytest
from msgspec import Struct

from jobs import errors
from regions import durability, names, settings, topology
from regions.metrics import METRICS
from regions.settings import ROOT
from scripts import cli
from scripts.commands import bench
from scripts.stack import dashboard_roles, hub_acl, prometheus
from tests.service.web.api.test_tenants import PAGES, SCOPES
from web import app
from web.api import openapi, problem_types, repeat
from web.console.pages import Console
from web.http import problems, trace
from web.hub import faults

INTERFACE = openapi.described(settings.Limits())
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# Packages whose files are said by their names: one for each command, and for each page of the sample site.
WITHOUT_MAP = {"scripts/commands", "scripts/site", "scripts/site/pages"}
PACKAGES = {
    str(init.parent.relative_to(ROOT))
    for top in ("bridge", "jobs", "regions", "scripts", "web")
    for init in (ROOT / top).glob("**/__init__.py")
}
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "clients/python/README.md")),
        *sorted((ROOT / "docs").glob("*.md")),
    )
}
OF_TODAY = {
    name: text for name, text in DOCUMENTS.items() if name != "docs/decisions.md"
}  # decisions are as of their days


def table(document: str, heading: str) -> dict[str, list[str]]:
    """The rows of the table whose first heading this is: first cell → the others."""
    lines = iter((ROOT / "docs" / document).read_text(encoding="utf-8").splitlines())
    rows: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith(f"| {heading} |"):
            next(lines)
            for row in lines:
                if not row.startswith("|"):
                    return rows
                first, *rest = (cell.strip() for cell in row.strip("|").split(" | "))
                rows[first.strip("` |")] = [cell.strip("` |") for cell in rest]
    return rows


def fields(kind: type[Struct], prefix: str = "") -> dict[str, object]:
    """Every setting of a struct by its dotted name, with its default."""
    found: dict[str, object] = {}
    hidden = {"name", "region"}
    for one in msgspec.structs.fields(kind):
        if one.name in hidden:
            continue
        name = f"{prefix}{one.name}"
        if isinstance(one.type, type) and issubclass(one.type, Struct):
            found |= fields(one.type, f"{name}.")
        elif get_origin(one.type) is dict:
            found |= fields(get_args(one.type)[1], f"{name}.NAME.")
        else:
            found[name] = one.default
    return found


@pytest.mark.parametrize(("heading", "kind"), [("setting", settings.Settings), ("region setting", settings.Region)])
def test_every_setting_stands_in_the_document_with_its_default(heading, kind):
    documented = table("reference.md", heading)
    known = fields(kind)
    assert set(documented) == set(known)
    for name, default in known.items():
        if isinstance(default, bool):
            assert documented[name][0] == str(default).lower(), name
        elif isinstance(default, int | float) or (isinstance(default, str) and default and name != "title"):
            assert documented[name][0] == f"{default:g}" if isinstance(default, float) else str(default), name


def test_every_route_stands_in_the_document():
    parts = {name: MagicMock() for name in app.routes.__annotations__ if name != "return"}
    found = app.routes(**parts)
    routes = {f"{method} {path}".replace("<", "{").replace(">", "}") for method, path, _ in found}
    assert set(table("http.md", "call")) == routes
    # What another tenant may see of it: a word there, and tests/service/web/api/test_tenants.py asks it with two tenants' keys.
    assert {route.replace("<", "{").replace(">", "}") for route in SCOPES} == routes
    assert {f"{method} {path}" for method, path, _ in Console(MagicMock(), MagicMock()).routes()} == set(PAGES)


def test_every_error_type_stands_in_the_document_with_its_status():
    documented = table("http.md", "`error.type`")
    assert set(documented) == set(errors.TYPES)
    assert {kind: int(row[-1]) for kind, row in documented.items()} == {
        kind: problems.TASK_STATUSES.get(kind, 502) for kind in errors.TYPES
    }


def test_the_table_of_retries_is_the_codes():
    """Which types are tried again and how long they wait; of statuses, which ones."""
    documented = table("reference.md", "`error.type` of an attempt")
    assert set(documented) == set(errors.TYPES)
    waits = {kind: tuple(map(float, row[1:])) for kind, row in documented.items() if not row[0].startswith("no")}
    assert waits == errors.RETRIED
    *single, least = map(int, re.findall(r"\d{3}", documented["http_status"][0]))
    assert [status for status in range(100, 1000) if errors.is_passing(status)] == [*single, *range(least, 1000)]
    assert {kind.type for kind in errors.TaskError.__subclasses__() if kind.retryable} <= {*waits, "region_unavailable"}


def test_every_problem_stands_in_the_document_as_its_page_has_it():
    """Its statuses and when it comes; in the document the texts have links."""
    documented = {problems.PAGES + kind: tuple(row) for kind, row in table("http.md", "kind").items()}
    documented |= {
        problems.TASK_PAGES + kind: (row[-1], row[0]) for kind, row in table("http.md", "`error.type`").items()
    }
    pages = {one.type: (", ".join(map(str, one.statuses)), one.when) for one in problem_types.TYPES.values()}
    assert {kind: (status, plain(when)) for kind, (status, when) in documented.items()} == {
        kind: (status, when.strip("` ")) for kind, (status, when) in pages.items()
    }


def names_of(document: str, heading: str) -> set[str]:
    """What the first cells of a table name."""
    return {name for cell in table(document, heading) for name in cell.split("`, `")}


def test_every_header_stands_in_the_document():
    """Those that the gateway reads and sends, as the OpenAPI document has them."""
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "web").rglob("*.py"))
    read = set(re.findall(r"""\.header\("([\w-]+)"\)""", code)) | {repeat.HEADER, trace.HEADER}
    told = {
        one["name"]
        for path in INTERFACE["paths"].values()
        for call in path.values()
        for one in (call if isinstance(call, list) else call["parameters"])
        if one["in"] == "header"
    }
    assert names_of("http.md", "header of a call") == read | told | {"Accept-Encoding"}
    assert names_of("http.md", "header of an answer") == {*openapi.HEADERS, "Allow"}


def test_every_member_stands_in_the_document():
    text = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
    members = {name for schema in INTERFACE["components"]["schemas"].values() for name in members_of(schema)}
    query = {
        one["name"]
        for path in INTERFACE["paths"].values()
        for one in path["get" if "get" in path else "post"]["parameters"]
        if not one.get("explode")  # its members have names of their own
    }
    code = " ".join([*FENCE.findall(text), *re.findall(r"`([^`\n]+)`", FENCE.sub("", text))])
    words = set(re.findall(r"[\w-]+", code))
    assert len(members) > 120
    assert sorted((members | query) - words) == []


def members_of(schema: object) -> set[str]:
    """The names of all members of a schema and of those in it; not those of the schemas that it refers to."""
    if isinstance(schema, list):
        return {name for one in schema for name in members_of(one)}
    if not isinstance(schema, dict):
        return set()
    own = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
    parts = [
        *schema.get("properties", {}).values(),
        schema.get("items"),
        schema.get("anyOf"),
        schema.get("additionalProperties"),
    ]
    return own | {name for one in parts for name in members_of(one)}


def plain(text: str) -> str:
    """A text without its links."""
    return re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)


def test_every_metric_stands_in_the_document_as_it_is():
    documented = table("reference.md", "metric")
    assert documented == {
        one.name: [one.kind, ", ".join(one.labels), ", ".join(one.parts), one.help] for one in METRICS.values()
    }


def test_every_fault_stands_in_the_document_with_its_anchor():
    documented = table("operations.md", "fault")
    general = {"region": "REGION", "source": "SOURCE"}
    assert documented == {
        f'<a id="{name}"></a>`{name}': [kind.severity, kind.cost, kind.mend.format(**general)]
        for name, kind in faults.KINDS.items()
    }


def test_the_alert_rules_that_ship_are_those_of_the_faults():
    found = prometheus.RULES.read_text(encoding="utf-8")
    assert found == prometheus.rules(), "run: python -m scripts.stack.prometheus > scripts/prometheus/alerts.yml"


@pytest.mark.parametrize("package", sorted(PACKAGES - WITHOUT_MAP))
def test_the_docstring_of_a_package_names_every_file_in_it(package):
    """It is the map of the room: whoever opens the folder sees what stands there."""
    init = ROOT / package / "__init__.py"
    words = set(re.findall(r"\w+", ast.get_docstring(ast.parse(init.read_text(encoding="utf-8")))))
    assert {file.stem for file in init.parent.glob("*.py")} - words <= {"__init__", "__main__"}


def test_the_architecture_names_every_source_file_once_and_no_other():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = Counter(re.findall(r"`((?:bridge|jobs|regions|scripts|web)/[\w./-]+\.py)`", text))
    data = (ROOT / "jobs" / "sources", ROOT / "scripts" / "site" / "pages")  # a file more needs no word there
    there = {
        str(path.relative_to(ROOT))
        for folder in ("bridge", "jobs", "regions", "scripts", "web")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py" and not any(path.is_relative_to(one) for one in data)
    }
    assert len(there) > 200
    assert {name: count for name, count in named.items() if count > 1} == {}
    assert sorted(there ^ set(named)) == []


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    headings = re.findall(
        r"^#{1,6} (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    named = set(re.findall(r'<a id="([\w-]+)">', text))
    return named | {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_to_a_file_and_a_heading_that_are_there():
    texts = {ROOT / name: text for name, text in DOCUMENTS.items()}
    lost, count = [], 0
    for document, text in texts.items():
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
            count += 1
            file, _, anchor = link.partition("#")
            target = (document.parent / file).resolve() if file else document
            if not target.exists() or (anchor and anchor not in anchors(texts.get(target, ""))):
                lost.append(f"{document.name}: {link}")
    assert count > 80
    assert lost == []


def test_every_document_that_code_names_is_there():
    folders = ("bridge", "jobs", "regions", "scripts", "tests", "web")
    named = {
        name
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"docs/\w+\.md", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 2
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def commands(text: str) -> list[str]:
    """What follows ``nearfetch`` wherever a document writes that as code."""
    in_blocks = re.findall(r"(?:^|scripts/)nearfetch (.+?)(?:\s{2}|$)", "\n".join(FENCE.findall(text)), re.MULTILINE)
    return [*in_blocks, *re.findall(r"`(?:scripts/)?nearfetch ([^`]+)`", FENCE.sub("", text))]


def test_every_command_in_the_documents_is_one():
    unknown, seen = [], set()
    for line in [line for text in OF_TODAY.values() for line in commands(text)]:
        command: click.Command = cli.main
        words = line.split()
        while isinstance(command, click.Group) and words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
            seen.add(command.name)
        options = {"--help", *(option for param in command.params for option in param.opts)}
        given = {word for word in words if word.startswith("-")}
        if given - options or (isinstance(command, click.Group) and words and not given):
            unknown.append(line)
    assert len(seen) > 15
    assert unknown == []


@pytest.mark.parametrize("script", ["up", "test"])
def test_every_option_of_a_script_in_the_documents_is_one(script):
    source = (ROOT / "scripts" / script).read_text(encoding="utf-8")
    named = {
        option
        for text in OF_TODAY.values()
        for line in re.findall(rf"scripts/{script} ([^`\n]*)", text)
        for option in re.findall(r"(?<!\S)--?[a-z][\w-]*", line)
    }
    assert named if script == "up" else True
    assert [option for option in sorted(named) if option not in source] == []


def test_every_module_that_a_document_runs_is_there():
    named = {name for text in OF_TODAY.values() for name in re.findall(r"python -m ([a-z][\w.]+\w)", text)}
    ours = {name: ROOT / name.replace(".", "/") for name in named if (ROOT / name.partition(".")[0]).is_dir()}
    assert len(ours) > 4
    files = {name: (path.with_suffix(".py"), path / "__main__.py") for name, path in ours.items()}
    assert [name for name, either in files.items() if not any(file.exists() for file in either)] == []


def test_every_log_line_that_the_document_explains_is_logged():
    told = [line for key in table("operations.md", "line") for line in key.split("`, `")]
    folders = ("bridge", "jobs", "regions", "web")
    code = "".join(path.read_text(encoding="utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert len(told) > 10
    assert [line for line in told if f'"{line}"' not in code] == []


def test_every_key_that_a_document_names_is_one():
    known = set(re.findall(r"^    (nf:\S+)", names.__doc__ or "", re.MULTILINE))
    words = [word for text in OF_TODAY.values() for word in in_code(text)]
    named = {name for word in words for name in re.findall(r"nf:[a-z:]+[A-Z]*", word)} - {"nf:"}
    assert len(named) > 15
    assert {re.sub("[A-Z]+", lambda found: f"{{{found[0].lower()}}}", name) for name in named} - known == {
        "nf:cache"
    }  # of a pattern


def test_every_key_that_is_made_stands_in_the_list_at_the_head_of_the_file_that_makes_it():
    _, head, code = Path(names.__file__).read_text(encoding="utf-8").split('"""', 2)
    listed = set(re.findall(r"^    (nf:\S+)", head, re.MULTILINE))
    assert set(re.findall(r'"(nf:[^"]+)"', code)) - listed == set()


def test_the_rights_of_a_region_stand_in_the_document():
    text = " ".join((ROOT / "docs" / "operations.md").read_text(encoding="utf-8").split())
    assert f"ACL SETUSER {names.hub_user('fra')} on >PASSWORD {hub_acl.rules('fra')}" in text
    rights = topology.region_rights("fra")
    assert f"'{rights['configure']}' '{rights['write']}' '{rights['read']}'" in text
    assert f"""'{{"max-connections": {topology.CONNECTIONS_MAX}}}'""" in text


def test_the_rights_of_the_dashboards_users_stand_in_the_document():
    text = " ".join((ROOT / "docs" / "reference.md").read_text(encoding="utf-8").split())
    assert f"ACL SETUSER dashboard on >PASSWORD {dashboard_roles.READER_ACL}" in text
    assert f"ACL SETUSER dashboard-operator on >PASSWORD {dashboard_roles.OPERATOR_ACL}" in text


def test_the_settings_that_a_redis_must_have_stand_in_the_document():
    documented = table("reference.md", "setting of a Redis")
    assert {name: row[0] for name, row in documented.items()} == {
        name: expected for name, expected, _, _ in durability.RULES
    }


def in_code(text: str) -> list[str]:
    """What a document writes as code, outside of its examples."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def test_every_path_of_the_checkout_that_a_document_names_is_there():
    ours = re.compile(r"(?:\.\./)*((?:bridge|clients|docs|jobs|regions|scripts|tests|web)/[\w./*-]*)")
    named = {
        (name, found[1]) for name, text in OF_TODAY.items() for word in in_code(text) if (found := ours.fullmatch(word))
    }
    named = {(name, path.replace("NAME", "*").replace("ID", "*")) for name, path in named}
    assert len(named) > 250
    assert [(name, path) for name, path in sorted(named) if not any(ROOT.glob(path))] == []


def test_every_name_in_a_file_that_the_guide_to_changes_tells_stands_in_that_file():
    """`NAME` of `file.py`, and `file.py`: `NAME`."""
    text = " ".join(OF_TODAY["docs/changing.md"].split())
    pairs = [(name, file) for name, file in re.findall(r"`(\w+)` of `([\w/]+\.py)`", text) if "/" in file]
    assert len(pairs) > 5
    assert [(name, file) for name, file in pairs if name not in (ROOT / file).read_text(encoding="utf-8")] == []


def test_every_metric_that_a_document_names_is_one():
    named = {(name, metric) for name, text in OF_TODAY.items() for metric in re.findall(r"nearfetch_[a-z_]+", text)}
    parts = {metric.name for metric in METRICS.values()}
    assert [
        (name, metric)
        for name, metric in sorted(named)
        if metric != "nearfetch_client"
        and not any(part == metric or (metric[-1] == "_" and part.startswith(metric)) for part in parts)
    ] == []


def test_every_address_of_the_gateway_that_a_document_names_is_a_route():
    """`{request}`, `ID` and ids in examples stand for any one part of a path."""
    paths = [re.sub(r"\{[^}]+\}", "[^/]+", path) for path in INTERFACE["paths"]]
    named = {
        (name, address)
        for name, text in OF_TODAY.items()
        for address in re.findall(r"(?<![\w.])(/v1/[\w{}/.]*[\w}])", text)
    }
    assert len(named) > 20
    assert [
        (name, address) for name, address in sorted(named) if not any(re.fullmatch(path, address) for path in paths)
    ] == []


def test_every_setting_that_a_document_names_is_one():
    """Of the tables that only settings have: ``limits`` and ``fields`` are of definitions, too."""
    known = set(fields(settings.Settings)) | set(fields(settings.Region))
    known |= {f"{name}_file" for name in known}
    tables = {name.split(".")[0] for name in known if "." in name} - {"secrets"}
    pattern = re.compile(rf"(?:{'|'.join(sorted(tables))})\.[a-z_]+")
    named = {(name, word) for name, text in OF_TODAY.items() for word in in_code(text) if pattern.fullmatch(word)}
    named = {
        (name, word) for name, word in named if not word.endswith(".py") and word != "hub.webhooks"
    }  # a queue of RQ
    assert len(named) > 60
    there = {
        (name, word)
        for name, word in named
        if word in known or any(one.endswith(f".NAME.{word.split('.')[1]}") for one in known)
    }
    assert sorted(named - there) == []


def test_every_row_of_the_benchmark_that_a_document_names_is_one():
    told = {
        row
        for text in OF_TODAY.values()
        for rows in re.findall(r"--rows ([a-z\d,-]+[a-z\d])", text)
        for row in rows.split(",")
    }
    assert told - set(bench.NAMES) == set()
    assert set(table("performance.md", "`--rows`")) == set(bench.EXTRA)


def test_every_kind_of_fault_of_the_chaos_run_that_a_document_names_is_one():
    named = {
        kind
        for text in OF_TODAY.values()
        for kinds in re.findall(r"--faults ([a-z,_-]+)", text)
        for kind in kinds.split(",")
    }
    plan = (ROOT / "scripts" / "chaos" / "plan.py").read_text(encoding="utf-8")
    assert named
    assert [kind for kind in sorted(named) if f'"{kind}"' not in plan] == []


def test_every_script_says_in_its_first_lines_what_it_is():
    scripts = [
        path
        for path in (ROOT / "scripts").rglob("*")
        if path.suffix in ("", ".sh", ".crontab", ".service") and path.is_file()
    ]
    heads = {path.name: path.read_text(encoding="utf-8").splitlines()[:2] for path in scripts}
    assert {"up", "test", "nearfetch", "setup.sh", "nearfetch.crontab"} <= set(heads)
    silent = [name for name, head in heads.items() if not any(re.match(r"# \w.{20}", line) for line in head)]
    assert silent == []
