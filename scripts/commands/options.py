"""Options that several commands share, and how they lead to the settings."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from regions.faults import Faults
from scripts.terminal import say

WRONG_USAGE: Final = 2
NO_SERVER: Final = 3


def gateway_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that choose the gateway."""
    url = click.option(
        "--url", default="", help="The gateway's address. Default: NEARFETCH_URL, else that of a running scripts/up."
    )
    data = click.option(
        "--data",
        type=click.Path(path_type=Path),
        help="The data folder of the scripts/up to ask. Default: NEARFETCH_DATA.",
    )
    return url(data(command))


def data_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--data``, which chooses the settings that ``scripts/up`` generated."""
    kind = click.Path(path_type=Path, exists=True, file_okay=False)
    return click.option("--data", type=kind, help="Use the settings of the scripts/up with this data folder.")(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def load(data: Path | None = None) -> Any:
    """The settings in force, or those of a data folder. Ends the command when they are wrong."""
    return _read(os.environ if data is None else {"NEARFETCH_CONFIG": str(data / "nearfetch.toml")})


def load_near(data: Path | None) -> Any:
    """The settings for commands that try sources here: those in force, else those of the scripts/up on this machine.

    The environment overrides both.
    """
    return load_with_folder(data)[0]


def load_with_folder(data: Path | None) -> tuple[Any, Any]:
    """The settings as ``load_near``, and the data folder that they are of, None if they are of none."""
    from scripts.stack.data_folder import DataFolder, default_path  # noqa: PLC0415

    folder = DataFolder(data or default_path())
    is_near = data is not None or ("NEARFETCH_CONFIG" not in os.environ and folder.supervisor is not None)
    if not is_near:
        return _read(os.environ), None
    return _read({**os.environ, "NEARFETCH_CONFIG": str(folder.settings)}), folder


def with_hub(settings: Any, name: str, command: Callable[[Any], int]) -> int:
    """Calls ``command`` with a client of the hub's Redis, which shows it as ``name``. Returns its exit code, or ``NO_SERVER``."""
    import redis  # noqa: PLC0415 - each import delays the shell

    from regions import connect  # noqa: PLC0415

    with connect.open_redis(settings.hub.redis, name=name, connections=1) as client:
        try:
            return command(client)
        except redis.exceptions.RedisError as error:
            say_hub_away(settings, error)
            return NO_SERVER


def say_hub_away(settings: Any, error: Exception) -> None:
    """Says that the hub's Redis does not answer."""
    from regions import connect  # noqa: PLC0415

    address = connect.without_password(settings.hub.redis)
    say(f"The hub's Redis at {address} does not answer: {error}", err=True)


def live(settings: Any) -> Any:
    """The same settings, but only the environment says which addresses may be fetched. No sample site answers."""
    from msgspec import structs  # noqa: PLC0415

    own = {key: value for key, value in os.environ.items() if key.startswith("NEARFETCH__FETCH__")}
    return structs.replace(settings, fetch=_read(own).fetch)


def _read(environ: Mapping[str, str]) -> Any:
    from regions import settings  # noqa: PLC0415 - each import delays the shell

    try:
        return settings.load(environ)
    except Faults as faults:
        refuse(faults)


def refuse(reason: object) -> NoReturn:
    """Ends the command with exit code 2: its input was wrong."""
    say(str(reason), err=True)
    sys.exit(WRONG_USAGE)
