"""``python -m scripts.site --port N``."""

import sys

import click

from regions import logs
from scripts.site import site


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The loopback address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), required=True)
def main(host: str, port: int) -> None:
    """Serves the sample pages until it is stopped."""
    logs.configure()
    sys.exit(site.run(host, port))


main()
