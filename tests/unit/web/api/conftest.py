"""Sources that the gateway knows."""

import pytest

from jobs.definition.catalog import Catalog
from tests import sources


@pytest.fixture
def listed(tmp_path):
    """The gateway's own: demo.list in fra, and demo.broken."""
    catalog = Catalog([sources.write(tmp_path)], "fra")
    catalog.refresh()
    return catalog
