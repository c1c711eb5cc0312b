"""The only reader of settings. Later ones win: defaults, file, ``NEARFETCH__SECTION__KEY`` in the environment, flags.

The hub's settings stand in ``nearfetch.toml``, or in the file that ``NEARFETCH_CONFIG`` names. A region's stand in
``regions/NAME.toml``, or in the folders that ``NEARFETCH__REGIONS__PATH`` names; in the environment its keys are
``NEARFETCH__REGION__NAME__SECTION__KEY``. Instead of any text setting ``KEY`` one can give ``KEY_file``, a file that holds
the value, so that secrets need not stand in settings or environment. All faults are reported at once, as ``Faults``.
"""

import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, get_origin

import msgspec
from msgspec import Meta, Struct, field

from regions import hosts, names, schedule, toml
from regions.egress import Egress, wrong_in_egress
from regions.faults import Fault, Faults, kind_of, nearest, show
from regions.folders import Bridges, Folders
from regions.gateway import Gateway, Port
from regions.schedule import Count, Scale, ScaleRule, Seconds
from regions.secret import VARIABLE, Secret, bound_by, is_secret, variable_of
from regions.webhooks import Webhooks

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "NEARFETCH__"

PortOrNone = Annotated[int, Meta(ge=0, le=65535)]
Durability = Annotated[str, Meta(pattern="^(strict|relaxed)$")]


class Hub(Struct, frozen=True, forbid_unknown_fields=True):
    """What the gateways and the regions share. A URL may name several hosts of one service, separated by commas.

    ``durability``: what to do when the central Redis is set so that it can't keep our promises. ``strict`` refuses to serve,
    ``relaxed`` only logs it. ``management_url``: RabbitMQ's HTTP API, where ``config check`` may read the queues' policy.
    """

    redis: str = "redis://127.0.0.1:6379/0"
    durability: Durability = "strict"
    amqp: str = "amqp://guest:guest@127.0.0.1:5672/%2F"
    management_url: str = ""
    mongo: str = ""


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may ask for."""

    result_ttl_seconds: Seconds = 3600.0
    deadline_seconds: Seconds = 30.0
    deadline_max_seconds: Seconds = 300.0
    grace_seconds: Seconds = 5.0
    wait_max_seconds: Seconds = 60.0
    tasks_max: Annotated[int, Meta(ge=1, le=1023)] = 100
    body_bytes_max: Count = 1_000_000
    attrs_bytes_max: Count = 4_000
    text_chars_max: Count = 2_000
    records_bytes_max: Count = 5_000_000
    request_bytes_max: Count = 50_000_000
    answer_bytes_max: Count = 8_000_000
    # At the hub; 0 means a share of its Redis's maxmemory (web.flow.holdings).
    region_bytes_max: Annotated[int, Meta(ge=0)] = 0


class History(Struct, frozen=True, forbid_unknown_fields=True):
    """How long finished requests stay in the store that ``hub.mongo`` names. Without that URL there is no history."""

    retention_days: Annotated[float, Meta(gt=0, le=36_500)] = 90.0


class Fetch(Struct, frozen=True, forbid_unknown_fields=True):
    """``allow``: permitted addresses besides public ones (``127.0.0.1:8099,10.0.0.0/8``); ``origins``: ``ORIGIN=ORIGIN,…``.

    ``ca_file``: certificates of CAs that are trusted besides the usual ones.
    """

    allow: str = ""
    origins: str = ""
    ca_file: str = ""


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    """``format``: json, text, or auto (text on a terminal)."""

    format: Annotated[str, Meta(pattern="^(auto|json|text)$")] = "auto"
    level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"


class RegionRedis(Struct, frozen=True, forbid_unknown_fields=True):
    """The region's own Redis; ``durability`` means the same as for the hub."""

    url: str = "redis://127.0.0.1:6390/0"
    durability: Durability = "strict"


class Workers(Struct, frozen=True, forbid_unknown_fields=True):
    """Threads and memory of one worker process."""

    threads: Annotated[int, Meta(ge=1, le=1024)] = 64
    memory_mb: Annotated[int, Meta(ge=150)] = 300


class Bridge(Struct, frozen=True, forbid_unknown_fields=True):
    """``prefetch``: two seconds of the region's peak rate; ``ready_max``: above this many ready jobs, bulk tasks stay in RabbitMQ."""

    prefetch: Annotated[int, Meta(ge=1, le=65535)] = 4000
    ready_max: Count = 20_000


class Dashboard(Struct, frozen=True, forbid_unknown_fields=True):
    """rq-dashboard. ``redis_url`` names a Redis user that can't change jobs; without ``password`` it does not start.

    With ``operator_password`` there is also an operator. This role deletes jobs, as the Redis user of ``operator_redis_url``, and
    requeues them, by the gateway at ``gateway_url`` (else ``gateway.public_url``). ``url``: where people reach it, when that is not its host
    and port.
    """

    url: str = ""
    host: str = "127.0.0.1"
    port: Port = 9181
    user: str = "ops"
    password: str = ""
    redis_url: str = ""
    operator_user: str = "operator"
    operator_password: str = ""
    operator_redis_url: str = ""
    gateway_url: str = ""

    @property
    def address(self) -> str:
        """The URL at which people find it; empty if there is none."""
        return self.url or (f"http://{self.host}:{self.port}/" if self.password else "")


class Raw(Struct, frozen=True, forbid_unknown_fields=True):
    """Stored raw answers of sources: those of failures, and that of a success every ``sample_seconds`` per source.

    With an empty ``path`` nothing is stored.
    """

    path: str = ""
    count_max: Count = 1000
    bytes_max: Count = 200_000_000
    ttl_seconds: Seconds = 86_400.0
    sample_seconds: Seconds = 600.0


class Metrics(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a region's bridge and its pool of workers serve ``/metrics`` on their hosts; with port 0 they serve none."""

    host: str = "127.0.0.1"
    bridge_port: PortOrNone = 0
    workers_port: PortOrNone = 0


class Region(Struct, frozen=True, forbid_unknown_fields=True):
    """One region; ``name`` is its file's. ``any_host``: sources that ask for it may fetch from any public address."""

    name: str = ""
    title: str = ""
    redis: RegionRedis = field(default_factory=RegionRedis)
    workers: Workers = field(default_factory=Workers)
    scale: Scale = field(default_factory=Scale)
    bridge: Bridge = field(default_factory=Bridge)
    egress: dict[str, Egress] = field(default_factory=dict)
    any_host: bool = False
    secrets: dict[str, Secret] = field(default_factory=dict)
    dashboard: Dashboard = field(default_factory=Dashboard)
    metrics: Metrics = field(default_factory=Metrics)
    raw: Raw = field(default_factory=Raw)

    def secrets_of(self, source: str) -> dict[str, str]:
        """The values of the secrets that a source may use, as far as this process has them."""
        return {name: one.value for name, one in self.secrets.items() if one.value and one.serves(source)}


class Settings(Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """All settings; ``region`` holds those of each region by name.

    A gateway changes ``region`` while it runs, as files come and go (web.flow.served): read it anew in each turn, as a list.
    """

    hub: Hub = field(default_factory=Hub)
    gateway: Gateway = field(default_factory=Gateway)
    limits: Limits = field(default_factory=Limits)
    history: History = field(default_factory=History)
    sources: Folders = field(default_factory=Folders)
    regions: Folders = field(default_factory=Folders)
    bridges: Bridges = field(default_factory=Bridges)
    fetch: Fetch = field(default_factory=Fetch)
    webhooks: Webhooks = field(default_factory=Webhooks)
    log: Log = field(default_factory=Log)
    region: dict[str, Region] = field(default_factory=dict)

    def one(self, name: str) -> Region:
        """The region of this name. Raises ``Faults``, which lists the known ones."""
        if name not in self.region:
            message = f'expected a known region, found "{name}"{nearest(name, self.region)}'
            raise Faults([Fault("regions", None, "", message)])
        return self.region[name]

    @property
    def first_region(self) -> str:
        """The region for sources that name none."""
        return next(iter(self.region))

    @cached_property
    def source_folders(self) -> list[Path]:
        """The folders with definitions: the shipped one, then the user's own."""
        return [ROOT / "jobs" / "sources", *self.sources.folders]


def load(
    environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None, *, only: str = ""
) -> Settings:
    """Reads all settings; with ``only``, those of no other region. Raises ``Faults``.

    ``flags`` are nested like the file.
    """
    environ = os.environ if environ is None else environ
    reader = _Reader(environ)
    hub_path = _hub_file(environ)
    data: dict[str, Any] = {}
    if "NEARFETCH_CONFIG" in environ or hub_path.exists():
        data = reader.file(hub_path)
    values = reader.struct(Settings, data, hub_path, ())
    regions: dict[str, Region] = {}
    for path in _region_files(_region_folders(values["regions"]), reader, only):
        content = reader.file(path)
        if not re.fullmatch(names.REGION_PATTERN, path.stem) or path.stem == names.HUB:
            message = (
                f'expected a file name like fra.toml ({names.REGION_PATTERN}, not {names.HUB}), found "{path.name}"'
            )
            reader.faults.append(Fault(path.name, None, "", message))
            continue
        region = reader.struct(Region, content, path, ("region", path.stem))
        title = region.get("title") or path.stem
        regions[path.stem] = Region(**{**region, "name": path.stem, "title": title})
    for section, part in (flags or {}).items():
        base: Any = values[section]
        values[section] = reader.struct_from(type(base), {**msgspec.structs.asdict(base), **part})
    if not only:
        reader.unknown_environment(regions)
    if not regions and not reader.faults:
        reader.faults.append(Fault("regions", None, "", "expected at least one region file, found none"))
    if reader.faults:
        raise Faults(reader.faults)
    return Settings(**{**values, "region": regions})


class Again:
    """Reads settings again and again, as ``load``, but only if one of their files has changed since, or come, or gone.

    Those of one region, or of all. A secret in a file of its own does not count.
    """

    def __init__(self, region: str = "") -> None:
        self._region = region
        self._folders: list[Path] = []
        self._stamps: dict[Path, tuple[int, ...] | None] | None = None  # of their files, before they were read
        self._found: Settings | None = None

    def __call__(self) -> Settings:
        """The settings as the files are now. Raises ``Faults``, each time until they are mended."""
        folders = self._folders
        stamps = {path: _stamp(path) for path in self._files(folders)}
        if self._found is None or stamps != self._stamps:
            self._found = None
            found = load(only=self._region)
            self._folders = _region_folders(found.regions)
            self._stamps = stamps if self._folders == folders else None
            self._found = found
        return self._found

    def _files(self, folders: list[Path]) -> list[Path]:
        if self._region:
            return [_hub_file(os.environ), *(folder / f"{self._region}.toml" for folder in folders)]
        return [_hub_file(os.environ), *(path for folder in folders for path in folder.glob("*.toml"))]


def _stamp(path: Path) -> tuple[int, ...] | None:
    """Changes with the file; None if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _hub_file(environ: Mapping[str, str]) -> Path:
    return Path(environ["NEARFETCH_CONFIG"]) if "NEARFETCH_CONFIG" in environ else ROOT / "nearfetch.toml"


def _region_folders(named: Folders) -> list[Path]:
    return named.folders or [ROOT / "regions"]


def _region_files(folders: list[Path], reader: "_Reader", only: str) -> list[Path]:
    files: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            reader.faults.append(Fault("regions.path", None, "", f"expected a folder, found {folder}"))
            continue
        files.update({path.stem: path for path in sorted(folder.glob("*.toml"))})
    return [files[name] for name in sorted(files) if only in ("", name)]


class _Reader:
    """Converts field by field, since msgspec stops at the first fault. Collects all faults and the variables that were used."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = {key: value for key, value in environ.items() if key.startswith(PREFIX)}
        self.used: set[str] = set()
        self.faults: list[Fault] = []
        self.texts: dict[Path, str] = {}

    def file(self, path: Path) -> dict[str, Any]:
        try:
            text = toml.text_of(path)
            data = toml.parse(path, text)
        except Faults as faults:
            self.faults += faults.faults
            return {}
        self.texts[path] = text
        return data

    def struct(self, kind: type[Struct], data: Any, path: Path, prefix: tuple[str, ...]) -> dict[str, Any]:
        """The converted fields of a struct that the file or the environment sets; faults are collected."""
        if not isinstance(data, dict):
            self._fault(path, prefix, f"expected a table, found {kind_of(data)}")
            return {}
        known = {f.name: f for f in msgspec.structs.fields(kind)}
        file_keys = {f"{name}_file" for name, f in known.items() if f.type is str}
        hidden = {"name"} if kind is Region else {"region"} if kind is Settings else set()
        for key in data:
            if (key not in known and key not in file_keys) or key in hidden:
                self._fault(path, (*prefix, key), f"unknown key{nearest(key, set(known) - hidden)}")
        values: dict[str, Any] = {}
        for name, spec in known.items():
            if name in hidden or (kind is Scale and name == "schedule"):
                continue
            where = (*prefix, name)
            if spec.type is Scale:
                values[name] = self._scale(data.get(name, {}), path, where)
            elif isinstance(spec.type, type) and issubclass(spec.type, Struct):
                values[name] = spec.type(**self.struct(spec.type, data.get(name, {}), path, where))
            elif kind is Region and name == "egress":
                values[name] = self._egresses(data.get(name, {}), path, where)
            elif kind is Region and name == "secrets":
                values[name] = self._secrets(data.get(name, {}), path, where)
            else:
                self._leaf(values, spec, data, path, where)
        return values

    def _egresses(self, data: Any, path: Path, where: tuple[str, ...]) -> dict[str, Egress]:
        """The ways out by name; ``default`` always exists."""
        found: dict[str, Egress] = {}
        tables = data if isinstance(data, dict) else {"default": data}
        for name, table in {"default": {}, **tables}.items():
            place = (*where, name)
            found[name] = Egress(**self.struct(Egress, table, path, place))
            for key, message in wrong_in_egress(found[name]):
                self._fault(path, (*place, key), message)
        return found

    def _secrets(self, data: Any, path: Path, where: tuple[str, ...]) -> dict[str, Secret]:
        """The secrets by name, including those that only the environment binds."""
        if not isinstance(data, dict):
            self._fault(path, where, f"expected a table, found {kind_of(data)}")
            data = {}
        prefix = PREFIX + "__".join(where).upper().replace("-", "_")
        secrets = {}
        for name in (*data, *bound_by(self.environ, prefix, data)):
            values = self.struct(Secret, data.get(name, {}), path, (*where, name))
            if not values.get("sources"):
                self._fault(path, (*where, name), 'expected the sources that may use it, like ["line.*"], found none')
            variable = "" if "value" in values else variable_of(self.environ, name)
            if variable.endswith("_FILE"):
                self._secret(values, "value", self.environ[variable], Path("environment"), (variable,))
            elif variable:
                values["value"] = self.environ[variable]
            secrets[name] = Secret(**values)
        return secrets

    def _scale(self, data: Any, path: Path, where: tuple[str, ...]) -> Scale:
        """The table with its rules. Minimums are compared with maximums only when nothing else is wrong."""
        known = len(self.faults)
        values = self.struct(Scale, data, path, where)
        given = data.get("schedule", []) if isinstance(data, dict) else []
        if not isinstance(given, list):
            self._fault(path, (*where, "schedule"), f"expected a list of tables, found {show(given)}")
            given = []
        rules = []
        for number, one in enumerate(given):
            place = (*where, "schedule", str(number))
            rules.append(ScaleRule(**self.struct(ScaleRule, one, path, place)))
            for key, message in schedule.wrong_in_rule(rules[-1]):
                self._fault(path, (*place, key), message)
        scale = Scale(**values, schedule=tuple(rules))
        if len(self.faults) == known:
            for keys, message in schedule.wrong_in_bounds(scale):
                self._fault(path, (*where, *map(str, keys)), message)
        return scale

    def _leaf(
        self,
        values: dict[str, Any],
        spec: msgspec.structs.FieldInfo,
        data: dict[str, Any],
        path: Path,
        where: tuple[str, ...],
    ) -> None:
        name, place = where[-1], where
        variable = PREFIX + "__".join(part.upper().replace("-", "_") for part in where)
        if variable in self.environ:
            self.used.add(variable)
            path, place = Path("environment"), (variable,)
            self._convert(values, spec, self.environ[variable], path, place, strict=False)
        elif f"{variable}_FILE" in self.environ:
            self.used.add(f"{variable}_FILE")
            path, place = Path("environment"), (f"{variable}_FILE",)
            self._secret(values, name, self.environ[f"{variable}_FILE"], path, place)
        elif f"{name}_file" in data:
            place = (*where[:-1], f"{name}_file")
            self._secret(values, name, data[f"{name}_file"], path, place)
        elif name in data:
            self._convert(values, spec, data[name], path, where, strict=True)
        if name in values and (message := hosts.wrong_in(where, values[name])):
            self._fault(path, place, message)

    def _convert(
        self,
        values: dict[str, Any],
        spec: msgspec.structs.FieldInfo,
        value: Any,
        path: Path,
        where: tuple[str, ...],
        *,
        strict: bool,
    ) -> None:
        if not strict and get_origin(spec.type) is tuple:
            value = [part.strip() for part in value.split(",") if part.strip()]
        try:
            values[spec.name] = msgspec.convert(value, spec.type, strict=strict)
        except msgspec.ValidationError as error:
            expected = str(error).removeprefix("Expected ").removeprefix("Object missing ")
            shown = "a value that is not shown" if is_secret(where[-1]) else show(value)
            self._fault(path, where, f"expected {expected[0].lower()}{expected[1:]}, found {shown}")

    def _secret(self, values: dict[str, Any], name: str, file: Any, path: Path, where: tuple[str, ...]) -> None:
        try:
            values[name] = Path(str(file)).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            self._fault(path, where, f"expected a readable file, found {type(error).__name__} at {file}")

    def struct_from(self, kind: type[Struct], data: dict[str, Any]) -> Any:
        """A whole struct from flags."""
        values = self.struct(kind, data, Path("flags"), ())
        return kind(**values)

    def unknown_environment(self, regions: Mapping[str, Region]) -> None:
        """Reports each variable with our prefix that no setting used: it must be a typing error."""
        for variable in sorted(set(self.environ) - self.used):
            if variable.startswith(VARIABLE):
                continue
            known = [f"region {name}" for name in regions] if variable.startswith(f"{PREFIX}REGION__") else []
            hint = f" (known: {', '.join(known)})" if known else ""
            self.faults.append(
                Fault("environment", None, variable, f"expected the name of a setting, found none{hint}")
            )

    def _fault(self, path: Path, where: tuple[str, ...], message: str) -> None:
        key = where[2:] if where[:1] == ("region",) else where
        text = self.texts.get(path)
        steps = tuple(int(part) if part.isdigit() else part for part in key)
        line = toml.line_of(text, steps) if text is not None else None
        self.faults.append(Fault(path.name, line, ".".join(key), message))
