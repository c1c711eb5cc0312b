"""A shipping line's tracking as a table in a page of 12 KB that is mostly style and script. Boxes and ships are made up.

A number that ends in seven zeros is a box that nothing has happened to yet.
"""

import random
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Final

from scripts.site.pages.page import Answer, Asked

ORIGINS: Final = ("tracking.reel.example",)
PATH: Final = "/ContainerStatus.asp"
START: Final = PATH + "?container=TEMU1234565"
STEPS: Final = (
    ("RECD MTY FROM CONSIGNEE", "AMBERPORT,SAMPLELAND", "CONSIGNEE PREMISES"),
    ("PICKUP BY CONSIGNEE", "AMBERPORT,SAMPLELAND", "SLAMB"),
    ("IMPORT DISCHARGE FULL", "AMBERPORT,SAMPLELAND", "FROM / TO VESSEL"),
    ("LOADED FULL", "IRONHARBOR,EXAMPLIA", "EXIRO"),
    ("EXPORT AT PORT", "IRONHARBOR,EXAMPLIA", "SHIPPER PREMISES"),
    ("PICKUP BY SHIPPER", "IRONHARBOR,EXAMPLIA", "EXIRO"),
)
LATEST: Final = datetime(2026, 11, 23, 11, 0, 32)  # noqa: DTZ001 - the page says no zone
_NUMBER: Final = re.compile(r"[A-Z]{4}\d{7}")


@dataclass(frozen=True)
class Event:
    """``days`` since the event before it."""

    status: str
    when: datetime
    place: str
    site: str
    days: int
    vessel: str
    voyage: str


def answer(asked: Asked) -> Answer | None:
    """A box's page; the form again where the number is none."""
    if asked.path != PATH:
        return None
    number = asked.query.get("container", "")
    if not _NUMBER.fullmatch(number):
        return Answer((_HEAD + '<form method="post">Container No. <input name="container"></form>' + _TAIL).encode())
    return Answer(_page(number).encode())


@cache
def events(number: str) -> list[Event]:
    """What happened to a box, the latest first."""
    draw = random.Random(number)
    when, found = LATEST, []
    for status, place, site in () if number.endswith("0000000") else STEPS:
        days = draw.randrange(1, 21)
        found.append(Event(status, when, place, site, days, f"SAMPLE {draw.randrange(9)}", f"{draw.randrange(99)}W"))
        when -= timedelta(days=days, minutes=draw.randrange(900), seconds=draw.randrange(60))
    return found


def _page(number: str) -> str:
    rows = "".join(_row(count, event) for count, event in enumerate(events(number), 1))
    return f"""{_HEAD}
	<div id="row">

		<div class="col-md-12">
			<div class="panel panel-primary ">
				<div class="MainTitle">
					<div class="panel-title ">
						<b> <font size="4"  >CURRENT SHIPMENT EVENT STATUS </font><br><font size="1" >Container No. : \
{number} - (HC40)</font></b>
					</div>
				</div><!-- panel-heading -->
				<table><tr class="Mainlabel1"><td>1</td><td>A TABLE OF SOMETHING ELSE</td></tr></table>


				<div style='height:300px;overflow:auto;'>
					<table class="table table-hover " align=center border=0 width='98%'>
						<tr class="Mainlabel3">
							<td><b>#</b></td>
							<td><b>Event Status</b></td>
							<td><b>Event Date Time</b></td>
							<td><b>Location</b></td>
							<td><b>Ageing</b></td>
							<td><b>Vessel Voyage</b></td>
						</tr>

{rows}
						<!-- <tr class='Mainlabel4'><td>7</td><td>NOT SHOWN</td><td>01-JAN-2026 00:00:00</td></tr> -->
					</table>
				</div>
			</div>
		</div>
	</div>
{_TAIL}"""


def _row(count: int, event: Event) -> str:
    when = event.when.strftime("%d-%b-%Y %H:%M:%S").upper()
    return f"""
						<tr class='Mainlabel4'>
							<td>{count}</td>
							<td>{event.status}</td>
							<td nowrap>{when}</td>
							<td>{event.place}<br>({event.site})</td>
							<td nowrap>{event.days}</td>
							<td>{event.vessel} / {event.voyage}</td>
						</tr>
"""


_STYLE: Final = "\n".join(
    f"""
		.sample{number} {{
			font-size: {number % 9 + 8}px !important;
			color: #{number * 1111 % 4096:03x} !important;
			vertical-align: middle !important;
			white-space: pre-line !important;
		}}
"""
    for number in range(36)
)
_HEAD: Final = f"""<!--
'File Name					:	includestyle.asp
'Description				:	include styles
-->

<!DOCTYPE html
	PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html>

<head runat="server">
	<html xmlns="https://www.w3.org/1999/xhtml">

	<meta charset="utf-8">
	<meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
	<title>REEL, a sample</title>
	<style>{_STYLE}</style>
	<script type="text/javascript">
		function View(BlNo) {{
			$("#SHOW").html("<tr class='Mainlabel4'><td>0</td><td>" + BlNo + "</td></tr>");
		}}
		$(function () {{ $.ajax({{ url: "TrackingView.asp", method: "POST", data: {{ BlNo: 1 < 2 }} }}); }});
	</script>
"""
_TAIL: Final = """
	<div id="BottomFocus" tabindex="0"></div>
</html>
"""
