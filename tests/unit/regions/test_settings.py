"""Settings: where a value comes from, and every fault at once with its file, line, key, expectation and finding."""

import pytest

from regions import settings, toml
from regions.faults import Faults


@pytest.fixture
def files(tmp_path):
    """Writes a hub file and region files; gives the environment that names them."""

    def write(hub="", **regions):
        folder = tmp_path / "regions"
        folder.mkdir(exist_ok=True)
        (tmp_path / "nearfetch.toml").write_text(hub)
        for name, text in (regions or {"fra": ""}).items():
            (folder / f"{name}.toml").write_text(text)
        return {"NEARFETCH_CONFIG": str(tmp_path / "nearfetch.toml"), "NEARFETCH__REGIONS__PATH": str(folder)}

    return write


def faults(environ, flags=None):
    with pytest.raises(Faults) as caught:
        settings.load(environ, flags)
    return [str(fault) for fault in caught.value.faults]


def test_the_shipped_settings_load():
    found = settings.load({})
    assert list(found.region) == ["fra", "nyc", "sin"]
    assert found.first_region == "fra"
    assert found.limits.deadline_max_seconds == 300


def test_flags_beat_the_environment_beats_the_file_beats_the_default(files):
    environ = files('[gateway]\nport = 1001\nhost = "127.0.0.2"\n[log]\nlevel = "debug"\n')
    environ["NEARFETCH__GATEWAY__PORT"] = "1002"
    found = settings.load(environ, {"gateway": {"port": 1003}})
    assert (found.gateway.port, found.gateway.host, found.log.level, found.gateway.threads) == (
        1003,
        "127.0.0.2",
        "debug",
        8,
    )
    assert settings.load(environ).gateway.port == 1002


def test_a_regions_key_can_stand_in_the_environment(files):
    environ = files(fra="[workers]\nthreads = 4\n", **{"us-east": ""})
    environ["NEARFETCH__REGION__US_EAST__WORKERS__THREADS"] = "7"
    found = settings.load(environ)
    assert {name: region.workers.threads for name, region in found.region.items()} == {"fra": 4, "us-east": 7}
    assert found.one("us-east").title == "us-east"


def test_a_secret_can_stand_in_a_file_of_its_own(files, tmp_path):
    (tmp_path / "secret").write_text("redis://:pw@127.0.0.1:1/0\n")
    environ = files(f'[hub]\nredis_file = "{tmp_path}/secret"\n')
    assert settings.load(environ).hub.redis == "redis://:pw@127.0.0.1:1/0"
    environ = {**files(), "NEARFETCH__HUB__REDIS_FILE": str(tmp_path / "secret")}
    assert settings.load(environ).hub.redis == "redis://:pw@127.0.0.1:1/0"


def test_a_list_of_hosts_that_is_not_understood_is_refused_with_what_mends_it_and_without_its_password(files, tmp_path):
    (tmp_path / "secret").write_text("amqps://who:pw@one/%2F,two/%2F\n")
    environ = files(
        f'[hub]\nredis = "redis://:pw@one,two:99999/0"\namqp_file = "{tmp_path}/secret"\n', fra='redis.url = "one:1"\n'
    )
    told = faults(environ)
    amqp = "amqp://user:password@one:5672,two:5672/%2F, found a value that is not shown"
    shown = "redis://:password@one:6379,two:6379/0, found a value that is not shown"
    assert told == [
        f"nearfetch.toml:2: hub.redis: expected HOST or HOST:PORT between commas, as in {shown}",
        f"nearfetch.toml:3: hub.amqp_file: expected all hosts before the path, as in {amqp}",
        f"fra.toml:1: redis.url: expected redis:// or rediss:// before the hosts, as in {shown}",
    ]


def test_a_secret_is_bound_in_a_regions_file_and_its_value_stands_elsewhere(files, tmp_path):
    (tmp_path / "token").write_text("t0ken\n")
    bound = (
        '[secrets.A]\nsources = ["line.*"]\n[secrets.b]\nsources = ["one", "two.x"]\n[secrets.UNSET]\nsources = ["*"]\n'
    )
    environ = files(fra=bound, nyc='[secrets.A]\nsources = ["line.tracking"]\nvalue_file = "' + f'{tmp_path}/token"\n')
    environ |= {
        "NEARFETCH__SECRET__A": "x",
        "NEARFETCH__SECRET__b_FILE": str(tmp_path / "token"),
        "NEARFETCH__SECRET__NOBODY": "z",
        "NEARFETCH__REGION__NYC__SECRETS__MORE__SOURCES": "reel.tracking,line.*",
        "NEARFETCH__REGION__NYC__SECRETS__MORE__VALUE": "m",
    }
    found = settings.load(environ)
    fra, nyc = found.one("fra"), found.one("nyc")
    assert (fra.secrets_of("line.tracking"), fra.secrets_of("two.x"), fra.secrets_of("two")) == (
        {"A": "x"},
        {"b": "t0ken"},
        {},
    )
    assert nyc.secrets_of("line.tracking") == {"A": "t0ken", "MORE": "m"}
    assert nyc.secrets_of("reel.tracking") == {"MORE": "m"}


def test_every_fault_of_a_secret_is_told_and_none_of_its_value(files, tmp_path):
    environ = files(fra='[secrets.A]\n[secrets.B]\nsources = ["x"]\nvalue = 5\nsourced = 1\n', nyc="secrets = 1\n")
    environ["NEARFETCH__SECRET__A_FILE"] = str(tmp_path / "none")
    assert faults(environ) == [
        'fra.toml:1: secrets.A: expected the sources that may use it, like ["line.*"], found none',
        f"environment: NEARFETCH__SECRET__A_FILE: expected a readable file, found FileNotFoundError at {tmp_path}/none",
        'fra.toml:5: secrets.B.sourced: unknown key; did you mean "sources"?',
        "fra.toml:4: secrets.B.value: expected `str`, got `int`, found a value that is not shown",
        "nyc.toml:1: secrets: expected a table, found 1",
    ]


def test_all_faults_are_told_at_once_with_their_lines(files):
    environ = files(
        '[gateway]\nport = 99999\nhots = "x"\n\n[limits]\ngrace_seconds = "five"\n',
        fra='title = "F"\n[workers]\nthreads = "many"\n[scale]\nmin = 0\n',
        BAD="",
    )
    environ["NEARFETCH__GATEWAY__THREADS"] = "none"
    environ["NEARFETCH__GATWAY__PORT"] = "1"
    told = faults(environ)
    assert len(told) == 8
    text = "\n".join(told)
    for expected in (
        "nearfetch.toml:2: gateway.port: expected",
        'nearfetch.toml:3: gateway.hots: unknown key; did you mean "host"?',
        "nearfetch.toml:6: limits.grace_seconds: expected",
        "fra.toml:3: workers.threads: expected",
        'found "many"',
        "fra.toml:5: scale.min: expected",
        "NEARFETCH__GATEWAY__THREADS: expected",
        "NEARFETCH__GATWAY__PORT: expected the name of a setting",
    ):
        assert expected in text
    assert sum("BAD.toml" in line for line in told) == 1


def test_a_fault_never_shows_a_secret(files):
    told = faults(files('[hub]\nredis = ["redis://:hunter2@h/0"]\n'))
    assert "hunter2" not in "\n".join(told)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[gateway\n", "nearfetch.toml:1: expected TOML"),
        ("gateway = 5\n", "nearfetch.toml:1: gateway: expected a table, found 5"),
    ],
)
def test_a_file_that_is_no_settings_file_says_so(files, text, expected):
    assert expected in "\n".join(faults(files(text)))


def test_a_missing_file_and_a_missing_folder_say_so(tmp_path):
    environ = {"NEARFETCH_CONFIG": str(tmp_path / "no.toml"), "NEARFETCH__REGIONS__PATH": str(tmp_path / "none")}
    text = "\n".join(faults(environ))
    assert "no.toml: expected a readable UTF-8 file" in text
    assert "expected a folder" in text


def test_an_unknown_region_names_the_nearest():
    with pytest.raises(Faults, match='found "fre"; did you mean "fra"'):
        settings.load({}).one("fre")


def test_a_line_is_found_in_inline_tables_arrays_and_dotted_keys():
    text = 'a.b = 1\n[t]\nlist = [\n  {x = 1},\n  {y = 2},\n]\n[[u]]\nk = """\nlong\n"""\n'
    lines = [
        toml.line_of(text, key) for key in (("a", "b"), ("t", "list", 1, "y"), ("u", 0, "k"), ("t", "no"), ("no",))
    ]
    assert lines == [1, 6, 10, 2, None]


def test_a_regions_settings_are_read_again_only_when_a_file_of_theirs_changed(files, monkeypatch, tmp_path):
    read = []
    monkeypatch.setattr(settings, "load", lambda *_, its=settings.load, **how: read.append(1) or its(**how))
    for name, text in files("[limits]\ngrace_seconds = 3\n", fra="[scale]\nmin = 1\n", nyc="").items():
        monkeypatch.setenv(name, text)
    again = settings.Again("fra")
    assert [again().one("fra").scale.min for _ in range(5)] == [1] * 5
    assert len(read) == 2  # only after the first time it knows the folders
    files(fra="[scale]\nmin = 2\n", nyc='title = "other"\n')
    (tmp_path / "nearfetch.toml").write_text("[limits]\ngrace_seconds = 30\n")
    assert [again().one("fra").scale.min for _ in range(5)] == [2] * 5
    assert again().limits.grace_seconds == 30
    assert len(read) == 3


def test_a_file_that_comes_later_and_a_fault_are_noticed(files, monkeypatch, tmp_path):
    environ, later = files(fra="[scale]\nmin = 1\n"), tmp_path / "later"
    later.mkdir()
    monkeypatch.setenv("NEARFETCH_CONFIG", environ["NEARFETCH_CONFIG"])
    monkeypatch.setenv("NEARFETCH__REGIONS__PATH", f"{environ['NEARFETCH__REGIONS__PATH']}:{later}")
    again = settings.Again("fra")
    assert [again().one("fra").scale.min for _ in range(3)] == [1] * 3
    (later / "fra.toml").write_text("[scale]\nmin = 3\n")
    assert again().one("fra").scale.min == 3
    (later / "fra.toml").write_text("[scale]\nmin = nothing\n")
    for _ in range(3):
        with pytest.raises(Faults):
            again()
    (later / "fra.toml").unlink()
    assert again().one("fra").scale.min == 1


def test_all_regions_are_read_again_when_a_file_came_changed_or_went(files, monkeypatch):
    read = []
    monkeypatch.setattr(settings, "load", lambda *_, its=settings.load, **how: read.append(1) or its(**how))
    for name, text in files(fra="", nyc="").items():
        monkeypatch.setenv(name, text)
    again = settings.Again()
    assert [list(again().region) for _ in range(5)] == [["fra", "nyc"]] * 5
    assert len(read) == 2
    folder = again().regions.folders[0]
    (folder / "ams.toml").write_text('title = "Amsterdam"')
    assert [list(again().region) for _ in range(3)] == [["ams", "fra", "nyc"]] * 3
    (folder / "ams.toml").write_text('title = "Mokum"')
    assert again().one("ams").title == "Mokum"
    (folder / "nyc.toml").unlink()
    assert [list(again().region) for _ in range(3)] == [["ams", "fra"]] * 3
    assert len(read) == 5
