"""A front page of thirty links in nested tables, 31 KB, as a well-known one has today. Stories, sites and names are made up."""

import html
import random
from dataclasses import dataclass
from functools import cache
from typing import Final

from scripts.site.pages.page import FIRST, SECOND, TOPICS, Answer, Asked

ORIGINS: Final = ("news.ycombinator.com",)
STORIES: Final = 30
JOB_RANK: Final = 29  # one line is an advertisement: it has no points, no author and no comments
VERBS: Final = (
    "Show HN: a small tool for",
    "Why we moved away from",
    "The history of",
    "Notes on",
    "Ask HN: who likes",
)

HEAD: Final = """<html lang="en" op="news"><head><meta name="referrer" content="origin">\
<meta name="viewport" content="width=device-width, initial-scale=1.0">\
<link rel="stylesheet" type="text/css" href="news.css?sample"><link rel="icon" href="y18.svg">\
<link rel="alternate" type="application/rss+xml" title="RSS" href="rss"><title>Hacker News (a sample)</title></head>\
<body><center><table id="hnmain" border="0" cellpadding="0" cellspacing="0" width="85%" bgcolor="#f6f6ef">
<tr><td bgcolor="#ff6600"><table border="0" cellpadding="0" cellspacing="0" width="100%" style="padding:2px"><tr>\
<td style="width:18px;padding-right:4px"><a href="news"><img src="y18.svg" width="18" height="18" \
style="border:1px white solid; display:block"></a></td><td style="line-height:12pt; height:10px;"><span \
class="pagetop"><b class="hnname"><a href="news">Hacker News</a></b><a href="newest">new</a> | <a \
href="newcomments">comments</a> | <a href="ask">ask</a> | <a href="show">show</a> | <a href="jobs">jobs</a> | <a \
href="submit">submit</a></span></td><td style="text-align:right;padding-right:4px;"><span class="pagetop"><a \
href="login?goto=news">login</a></span></td></tr></table></td></tr>
"""
FOOT: Final = """<tr><td><img src="s.gif" height="10" width="0"><table width="100%" cellspacing="0" cellpadding="1"><tr><td \
bgcolor="#ff6600"></td></tr></table><br><center><span class="yclinks"><a href="newsguidelines.html">Guidelines</a> | \
<a href="newsfaq.html">FAQ</a> | <a href="lists">Lists</a> | <a href="security.html">Security</a></span><br><br>\
<form method="get" action="//search.example/">Search: <input type="text" name="q" size="17" autocorrect="off" \
spellcheck="false" autocapitalize="off" autocomplete="off"></form></center></td></tr></table></center></body></html>
"""


def answer(asked: Asked) -> Answer | None:
    """The front page and its following ones."""
    if asked.path not in ("/", "/news"):
        return None
    page = asked.query.get("p", "1")
    return Answer(_front(int(page)) if page.isdigit() and len(page) < 4 else _front(1))


@dataclass(frozen=True)
class Story:
    """An advertisement has no ``site``, ``user``, points or comments."""

    rank: int
    item: int
    title: str
    url: str
    site: str
    hours: int
    points: int | None
    user: str
    comments: int | None


@cache
def stories(page: int) -> list[Story]:
    """The stories of a page."""
    draw = random.Random(7 + page)
    first = (page - 1) * STORIES
    return [_story(draw, first + rank) for rank in range(1, STORIES + 1)]


def _story(draw: random.Random, rank: int) -> Story:
    item = 46_000_000 + rank * 97 + draw.randrange(97)
    site = f"{draw.choice(SECOND)}.example"
    subject, other = draw.sample(TOPICS, 2)
    title = f"{draw.choice(VERBS)} {draw.choice(FIRST)} {subject} & {other}"
    hours = draw.randrange(1, 23)
    if rank == JOB_RANK:
        title = f"A sample company (S26) is looking for gardeners of {subject}"
        return Story(rank, item, title, f"item?id={item}", "", hours, None, "", None)
    user = f"{draw.choice(FIRST)}{draw.randrange(10, 100)}"
    comments, points = draw.randrange(2, 600), draw.randrange(20, 900)
    return Story(rank, item, title, f"https://{site}/{draw.choice(SECOND)}/{item}", site, hours, points, user, comments)


@cache
def _front(page: int) -> bytes:
    rows = "".join(map(_rows, stories(page)))
    return f"""{HEAD}<tr style='height:10px'></tr><tr id="bigbox"><td><table border="0" cellpadding="0" cellspacing="0">
{rows}{more(f"?p={page + 1}")}</table></td></tr>
{FOOT}""".encode()


def more(address: str) -> str:
    """The line that leads to the next page."""
    return f"""<tr class="morespace" style="height:10px"></tr><tr><td colspan="2"></td><td class='title'><a \
href='{html.escape(address)}' class='morelink' rel='next'>More</a></td></tr>"""


def _rows(story: Story) -> str:
    item = story.item
    head = f"""<tr class='athing submission' id='{item}'><td align="right" valign="top" class="title"><span \
class="rank">{story.rank}.</span></td>"""
    age = f"""<span class="age" title="2026-11-23T{story.hours:02d}:00:00 {1_795_400_000 + story.hours * 3600}"><a \
href="item?id={item}">{24 - story.hours} hours ago</a></span>"""
    link = f'<a href="{story.url}">{html.escape(story.title)}</a>'
    if story.points is None:
        return f"""{head}<td><img src="s.gif" height="1" width="14"></td><td class="title"><span \
class="titleline">{link}</span></td></tr><tr><td colspan="2"></td><td class="subtext">
{age} | <a href="hide?id={item}&amp;goto=news">hide</a></td></tr>
<tr class="spacer" style="height:5px"></tr>
"""
    return f"""{head}<td valign="top" class="votelinks"><center><a id='up_{item}' \
href='vote?id={item}&amp;how=up&amp;goto=news'><div class='votearrow' title='upvote'></div></a></center></td>\
<td class="title"><span class="titleline">{link}<span class="sitebit comhead"> (<a href="from?site={story.site}"><span \
class="sitestr">{story.site}</span></a>)</span></span></td></tr><tr><td colspan="2"></td><td class="subtext"><span \
class="subline">
<span class="score" id="score_{item}">{story.points} points</span> by <a href="user?id={story.user}" \
class="hnuser">{story.user}</a> {age} | <a href="item?id={item}">{story.comments}&nbsp;comments</a></span></td></tr>
<tr class="spacer" style="height:5px"></tr>
"""
