"""A story's comments, a hundred a page of 110 KB: a tree that is flat in the mark-up. Comments and users are made up.

Item 46000000 has two pages, 46000001 no comments; ids below are of nothing.
"""

import html
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

from scripts.site.pages.hn import FOOT, HEAD, more
from scripts.site.pages.page import FIRST, SECOND, TOPICS, Answer, Asked, sentence

ORIGINS: Final = ("news.ycombinator.com",)
FIRST_ID: Final = 46_000_000
COUNTS: Final = {FIRST_ID: 130, FIRST_ID + 1: 0}
PER_PAGE: Final = 100
BEGAN: Final = datetime(2026, 11, 23, 8, 0, 0, tzinfo=UTC)
STORY: Final = "Show HN: a small tool for <parsers> & queues"


@dataclass(frozen=True)
class Comment:
    """``parent`` is None for an answer to the story; a deleted one has neither user nor paragraphs."""

    id: int
    parent: int | None
    depth: int
    user: str
    when: datetime
    paragraphs: tuple[str, ...]


def answer(asked: Asked) -> Answer | None:
    """A page of a story's comments; "No such item." for ids of nothing, with status 200 as the real one does."""
    if asked.path != "/item":
        return None
    number, page = asked.query.get("id", ""), asked.query.get("p", "1")
    if not number.isdigit() or int(number) < FIRST_ID or not page.isdigit():
        return Answer(b"No such item.")
    return Answer(_page(int(number), int(page)))


@cache
def comments(story: int) -> list[Comment]:
    """All comments of a story, in the order of the pages."""
    draw = random.Random(story)
    path: list[int] = []
    found = []
    for index in range(COUNTS.get(story, story % 90)):
        depth = draw.randrange(min(len(path), 5) + 1)
        number = story + 100 + index * 3
        path[depth:] = [number]
        is_deleted = index % 23 == 11
        user = "" if is_deleted else f"{draw.choice(FIRST)}{draw.randrange(10, 100)}"
        text = () if is_deleted else tuple(_paragraph(draw) for _ in range(draw.randrange(1, 4)))
        when = BEGAN + timedelta(seconds=index * 97)
        found.append(Comment(number, path[depth - 1] if depth else None, depth, user, when, text))
    return found


def _paragraph(draw: random.Random) -> str:
    return f"{sentence(draw, (*FIRST, *SECOND, *TOPICS), draw.randrange(4, 30))} if n < {draw.randrange(9)} && it's so."


@cache
def _page(story: int, page: int) -> bytes:
    first = (page - 1) * PER_PAGE
    found = comments(story)
    shown = "".join(_row(one) for one in found[first : first + PER_PAGE])
    following = more(f"item?id={story}&p={page + 1}") if first + PER_PAGE < len(found) else ""
    title = html.escape(STORY, quote=False)
    return f"""{HEAD}<tr style='height:10px'></tr><tr id="bigbox"><td><table class="fatitem" border="0">
<tr class='athing submission' id='{story}'><td align="right" valign="top" class="title"><span class="rank"></span></td>\
<td class="title"><span class="titleline"><a href="https://river.example/{story}">{title}</a>\
<span class="sitebit comhead"> (<a href="from?site=river.example"><span class="sitestr">river.example</span></a>)\
</span></span></td></tr><tr><td colspan="2"></td><td class="subtext"><span class="subline">
<span class="score" id="score_{story}">212 points</span> by <a href="user?id=writer1" class="hnuser">writer1</a> \
<span class="age" title="2026-11-23T07:00:00 1795417200"><a href="item?id={story}">9 hours ago</a></span> | \
<a href="item?id={story}">{len(found)}&nbsp;comments</a></span></td></tr>
<tr><td colspan="2"></td><td><form action="comment" method="post"><input type="hidden" name="parent" value="{story}">\
<textarea name="text" rows="8" cols="80"></textarea></form></td></tr></table><br><br>
<table border="0" class="comment-tree">
{shown}{following}</table></td></tr>
{FOOT}""".encode()


def _row(comment: Comment) -> str:
    number = comment.id
    up = (
        "" if comment.parent is None else f' | <a href="#{comment.parent}" class="clicky" aria-hidden="true">parent</a>'
    )
    who = f'<a href="user?id={comment.user}" class="hnuser">{comment.user}</a> ' if comment.user else ""
    age = f"{comment.when:%Y-%m-%dT%H:%M:%S} {int(comment.when.timestamp())}"
    text = "<p>".join(html.escape(one, quote=False) for one in comment.paragraphs)
    body = f'<div class="commtext c00">{text}</div>' if comment.user else "[deleted]"
    return f"""<tr class='athing comtr' id='{number}'><td><table border='0'>  <tr>    <td class='ind' \
indent='{comment.depth}'><img src="s.gif" height="1" width="{comment.depth * 40}"></td><td valign="top" class="votelinks">
      <center><a id='up_{number}' href='vote?id={number}&amp;how=up'><div class='votearrow' title='upvote'></div></a>\
</center>    </td><td class="default"><div style="margin-top:2px; margin-bottom:-10px;"><span class="comhead">
          {who}<span class="age" title="{age}"><a href="item?id={number}">1 hour ago</a></span> <span id="unv_{number}">\
</span>          <span class='navs'>{up} | <a href="#{number + 3}" class="clicky" aria-hidden="true">next</a> \
<a class="togg clicky" id="{number}t" n="1" href="javascript:void(0)">[–]</a><span class="onstory"></span>        </span>
                  </span></div><br>
                  <div class="comment">
                  {body}
              <div class='reply'>        <p><font size="1">
                      <u><a href="reply?id={number}&amp;goto=item">reply</a></u>
                  </font>
      </div></div></td></tr>
      </table></td></tr>
"""
