"""What a pool tells the hub of the sources that its region runs, and of those that it may take over."""

from jobs.pool.report import Reporter
from regions.settings import load

FIELDS = '[fields]\na = "b"\n'
SECRET = '[request]\nheaders = {A = "{secret.KEY}"}\n'


def reporter(tmp_path, sources: dict[str, str], **environ: str) -> Reporter:
    folder, regions = tmp_path / "sources", tmp_path / "regions"
    for one in (folder, regions):
        one.mkdir()
    for name, text in sources.items():
        (folder / f"{name}.toml").write_text(f"title = 'T'\nurl = 'https://a.example/'\n{text}")
    (regions / "fra.toml").write_text("title = 'fra'\n")
    (regions / "nyc.toml").write_text("title = 'nyc'\n[secrets.KEY]\nsources = ['bound', 'unset']\n")
    paths = {"NEARFETCH__SOURCES__PATH": str(folder), "NEARFETCH__REGIONS__PATH": str(regions)}
    settings = load({**paths, **environ})
    return Reporter(settings, settings.one("nyc"), None, "host:1", list, dict, dict)


def told(tmp_path, sources: dict[str, str], **environ: str) -> dict:
    made = reporter(tmp_path, sources, **environ)
    made._catalog.refresh()
    return {name: one for name, one in made.sources().items() if name in sources}


def test_a_region_tells_its_own_sources_and_those_whose_standby_it_is(tmp_path):
    said = told(
        tmp_path,
        {
            "own": f"region = 'nyc'\n{FIELDS}",
            "standby": f"region = 'fra'\nstandby = ['nyc']\n{FIELDS}",
            "other": f"region = 'fra'\n{FIELDS}",
            "pinned": f"region = 'fra'\npinned = true\n{FIELDS}",
        },
    )
    assert set(said) == {"own", "standby"}
    assert all(one["fault"] is None and "lacks" not in one for one in said.values())


def test_a_standby_tells_what_it_lacks_and_shows_no_secret(tmp_path):
    text = f"region = 'fra'\nstandby = ['nyc']\n{SECRET}{FIELDS}"
    said = told(tmp_path, {"bound": text, "unbound": text}, NEARFETCH__SECRET__KEY="hush")
    assert "lacks" not in said["bound"]
    assert "expected a secret of region nyc for this source, found KEY" in said["unbound"]["lacks"]
    assert "hush" not in str(said)
    (tmp_path / "again").mkdir()
    said = told(tmp_path / "again", {"unset": text})
    assert "NEARFETCH__SECRET__KEY of its workers, found none" in said["unset"]["lacks"]
    assert said["unset"]["fault"] is None  # its own region runs it all the same
