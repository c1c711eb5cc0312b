"""How a process notices that definitions changed."""

import os
import subprocess
import sys

from msgspec.structs import replace

from jobs.definition.catalog import Catalog, lacking
from jobs.definition.read import read
from regions.egress import Egress
from regions.secret import Secret
from regions.settings import ROOT, Region

GOOD = "title = 'Good'\nurl = 'https://a.example/'\n[fields]\na = 'b'\n"


def touch(path, text, later=1):
    path.write_text(text, encoding="utf-8")
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + later * 1_000_000))


def test_new_changed_and_removed_files(tmp_path):
    catalog = Catalog([tmp_path], "fra")
    assert not catalog.refresh()
    touch(tmp_path / "a.toml", GOOD)
    assert catalog.refresh()
    assert not catalog.refresh()
    first = catalog.get("a").definition
    touch(tmp_path / "a.toml", GOOD.replace("Good", "Goot"), later=2)
    assert catalog.refresh()
    assert (catalog.get("a").definition.title, catalog.get("a").definition.hash == first.hash) == ("Goot", False)
    (tmp_path / "a.toml").unlink()
    assert catalog.refresh()
    assert catalog.get("a") is None
    assert catalog.entries() == []


def test_a_change_of_id_py_is_noticed(tmp_path):
    touch(tmp_path / "a.toml", GOOD)
    catalog = Catalog([tmp_path], "fra")
    catalog.refresh()
    touch(tmp_path / "a.py", "def next_page(page):\n    return None\n")
    assert catalog.refresh()
    assert catalog.get("a").definition.code == ("next_page",)


ELSEWHERE = GOOD + "[request]\nmethod = 'GET'\negress = 'UE'\n"
BEFORE = "[before]\nurl = 'https://a.example/'\n[before.fields]\nt = 'b'\n[before.request]\negress = 'asia'\n"


FRA = Region(name="fra", egress={"default": Egress(), "eu": Egress()}, secrets={"BOUND": Secret(("shop.*", "other"))})


def test_a_source_of_a_known_region_must_name_one_of_its_egresses(tmp_path):
    """The gateway does not know the egresses of other regions; their own processes check them."""
    touch(tmp_path / "mine.toml", "region = 'fra'\n" + ELSEWHERE)
    touch(tmp_path / "another.toml", "region = 'nyc'\n" + ELSEWHERE)
    catalog = Catalog([tmp_path], "fra", {"fra": FRA})
    catalog.refresh()
    (fault,) = catalog.get("mine").faults
    assert str(fault) == 'mine.toml:8: request.egress: expected an egress of region fra, found "UE"; one of default, eu'
    assert catalog.get("mine").definition is None
    assert catalog.get("another").definition.ask.egress == "UE"
    touch(tmp_path / "mine.toml", ELSEWHERE.replace("UE", "eu") + BEFORE, later=2)
    catalog.refresh()
    assert [str(fault) for fault in catalog.get("mine").faults] == [
        'mine.toml:13: before.request.egress: expected an egress of region fra, found "asia"; one of default, eu'
    ]


def test_a_secret_is_only_for_the_sources_that_its_region_names(tmp_path):
    """The fault shows the line that mends it."""
    text = GOOD + "[request]\nheaders = {X-Key = '{secret.NAME}'}\n"
    catalog = Catalog([tmp_path], "fra", {"fra": FRA})
    touch(tmp_path / "shop.lamps.toml", text.replace("NAME", "BOUND"))
    touch(tmp_path / "mine.toml", text.replace("NAME", "BOUND"))
    touch(tmp_path / "own.toml", text.replace("NAME", "LINE_TOKEN"))
    login = "[before]\nurl = 'https://a.example/'\n[before.fields]\nt = 'b'\n[before.request]\nbody = '{secret.LINE_TOKEN}'\n"
    touch(tmp_path / "before.toml", GOOD + login)
    catalog.refresh()
    assert catalog.get("shop.lamps").faults == []
    assert [
        str(fault).partition(": ")[2] for name in ("mine", "own", "before") for fault in catalog.get(name).faults
    ] == [
        (
            "request: expected a secret of region fra for this source, found BOUND; "
            '[secrets.BOUND] sources = ["shop.*", "other", "mine"] in its file'
        ),
        (
            "request: expected a secret of region fra for this source, found LINE_TOKEN; "
            '[secrets.LINE_TOKEN] sources = ["own"] in its file'
        ),
        (
            "before.request: expected a secret of region fra for this source, found LINE_TOKEN; "
            '[secrets.LINE_TOKEN] sources = ["before"] in its file'
        ),
    ]


def test_a_file_that_disappears_while_it_is_read_does_no_harm(tmp_path, monkeypatch):
    path = tmp_path / "own.toml"
    touch(path, GOOD + "[request]\nheaders = {X-Key = '{secret.NAME}'}\n")

    def read_and_remove(path):
        found = read(path)
        path.unlink()
        return found

    monkeypatch.setattr("jobs.definition.catalog.read", read_and_remove)
    catalog = Catalog([tmp_path], "fra", {"fra": FRA})
    assert catalog.refresh()
    entry = catalog.get("own")
    assert entry.definition is None
    assert "FileNotFoundError" in entry.faults[0].message
    assert catalog.refresh()
    assert catalog.get("own") is None


def test_any_host_needs_the_permission_of_the_region(tmp_path):
    catalog = Catalog([tmp_path], "fra", {"fra": FRA, "nyc": replace(FRA, name="nyc", any_host=True)})
    text = "title = 'Any'\nany_host = true\nurl = '{+url}'\n[params]\nurl = {type = 'url'}\n[fields]\na = 'b'\n"
    touch(tmp_path / "mine.toml", text)
    touch(tmp_path / "theirs.toml", "region = 'nyc'\n" + text)
    catalog.refresh()
    (fault,) = catalog.get("mine").faults
    assert str(fault) == (
        "mine.toml:2: any_host: expected hosts, or any_host = true in the file of region fra, found neither"
    )
    assert catalog.get("theirs").faults == []


def test_before_uses_the_egress_of_the_request_unless_it_names_another(tmp_path):
    touch(tmp_path / "same.toml", ELSEWHERE + BEFORE.replace("[before.request]\negress = 'asia'\n", ""))
    touch(tmp_path / "other.toml", ELSEWHERE + BEFORE)
    touch(tmp_path / "none.toml", GOOD)
    catalog = Catalog([tmp_path], "fra")
    catalog.refresh()
    assert catalog.get("same").definition.before.ask.egress == "UE"
    assert catalog.get("other").definition.before.ask.egress == "asia"
    assert catalog.get("none").definition.ask.egress == "default"


def test_broken_file_is_an_entry_with_faults_beside_good_ones(tmp_path):
    touch(tmp_path / "good.toml", GOOD)
    touch(tmp_path / "bad.toml", GOOD + "b = {ccs = 'x'}\n[limits]\nrate = 'x'\n")
    touch(tmp_path / "worse.toml", "region = 'sin'\ntitle = 5\n")
    touch(tmp_path / "worst.toml", "\x00[[[")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "Upper Case.toml").write_text(GOOD)
    catalog = Catalog([tmp_path], "fra")
    assert catalog.refresh()
    assert catalog.get("good").definition.title == "Good"
    assert len(catalog.get("bad").faults) == 2
    assert catalog.get("worse").region == "sin"
    assert [entry.id for entry in catalog.entries() if entry.definition] == ["good"]
    assert all(entry.faults for entry in catalog.entries() if entry.definition is None)
    assert not catalog.refresh()
    touch(tmp_path / "bad.toml", GOOD, later=3)
    assert catalog.refresh()
    assert catalog.get("bad").faults == []


def test_region_of_a_source(tmp_path):
    touch(tmp_path / "a.toml", GOOD)
    touch(tmp_path / "b.toml", "region = 'nyc'\n" + GOOD)
    catalog = Catalog([tmp_path], "fra")
    catalog.refresh()
    assert [(entry.id, entry.region) for entry in catalog.entries()] == [("a", "fra"), ("b", "nyc")]


def test_later_folder_counts(tmp_path):
    for name, title in (("one", "One"), ("two", "Two")):
        (tmp_path / name).mkdir()
        touch(tmp_path / name / "a.toml", GOOD.replace("Good", title))
    catalog = Catalog([tmp_path / "one", tmp_path / "absent", tmp_path / "two"], "fra")
    catalog.refresh()
    assert catalog.get("a").definition.title == "Two"
    (tmp_path / "two" / "a.toml").unlink()
    assert catalog.refresh()
    assert catalog.get("a").definition.title == "One"


def test_the_gateway_needs_neither_lxml_nor_requests():
    code = "import sys, jobs.definition.catalog, jobs.definition.read; print(sorted({'lxml', 'requests', 'parsel'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_a_standby_lacks_is_told_without_a_value(tmp_path):
    """A secret that it does not bind, one without a value in its processes, an egress."""
    headers = "headers = {A = '{secret.KEY}', B = '{secret.VALUELESS}', C = '{secret.GOOD}'}\n"
    touch(tmp_path / "mine.toml", "region = 'fra'\nstandby = ['nyc']\n" + ELSEWHERE + headers)
    definition = read(tmp_path / "mine.toml")
    secrets = {"VALUELESS": Secret(("mine",)), "GOOD": Secret(("mine",), "hush")}
    nyc = replace(FRA, name="nyc", secrets=secrets)
    told = lacking(nyc, definition)
    assert 'expected an egress of region nyc, found "UE"' in told
    assert "expected a secret of region nyc for this source, found KEY" in told
    assert "expected the value of the secret VALUELESS in NEARFETCH__SECRET__VALUELESS of its workers" in told
    assert "GOOD" not in told
    assert "hush" not in told
    ready = replace(
        nyc,
        egress={"default": Egress(), "UE": Egress()},
        secrets={name: Secret(("m*",), "hush") for name in ("KEY", "VALUELESS", "GOOD")},
    )
    assert lacking(ready, definition) == ""


def test_regions_of_a_source(tmp_path):
    touch(tmp_path / "a.toml", "standby = ['nyc', 'fra', 'sin']\n" + GOOD)
    touch(tmp_path / "b.toml", "pinned = true\n" + GOOD)
    assert read(tmp_path / "a.toml").regions("fra") == ("fra", "nyc", "sin")
    assert read(tmp_path / "b.toml").regions("fra") == ("fra",)
