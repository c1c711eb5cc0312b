"""What a gateway logs of definitions that differ from its own."""

import re

from regions.settings import Region, Settings
from tests.unit.web.api.region_states import told
from web.api.overview import Overview


class Telling(Overview):
    """An overview that is told what regions said."""

    def __init__(self, catalog) -> None:
        self.said, self._catalog, self._differs, self._told = told(), catalog, {}, {}
        self._settings = Settings(region={"fra": Region(name="fra")})

    def _states(self):
        return {"fra": self.said}, {}


def test_a_difference_that_lasts_is_logged_once_and_so_is_its_end(listed, capsys):
    """A deploy reaches the hosts one after the other, so that one look is not enough."""
    own, telling = listed.get("demo.list").definition.hash, Telling(listed)

    def logged(definition: str) -> list[str]:
        telling.said = told(demo_list=definition)
        telling.tell()
        return re.findall(r"other definitions|same definitions", capsys.readouterr().out)

    seen = [logged(one) for one in ("0ther", own, "0ther", "0ther", "0ther", "an0ther", "an0ther", own, own)]
    assert seen == [[], [], [], ["other definitions"], [], [], ["other definitions"], ["same definitions"], []]
