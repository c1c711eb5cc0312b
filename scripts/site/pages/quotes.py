"""A hundred quotes, ten a page of 10 KB, and a login whose token and cookie belong together. Nobody said any of them."""

import hashlib
import random
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from scripts.site.pages.page import FIRST, SECOND, TOPICS, Answer, Asked, sentence

ORIGINS: Final = ("quotes.toscrape.com",)
PAGES: Final = 10
PER_PAGE: Final = 10
USER: Final = ("reader", "reader")  # name and password
AUTHORS: Final = ("Ada Amberg", "José Brook", "Mei Castell", "O. D. Ünn", "Łucja Fennel")


@dataclass(frozen=True)
class Quote:
    """``text`` without its quotation marks; some quotes have no tags."""

    text: str
    author: str
    tags: tuple[str, ...]

    @property
    def slug(self) -> str:
        """The author in addresses."""
        return self.author.replace(". ", "-").replace(" ", "-")


def answer(asked: Asked) -> Answer | None:
    """``/``, ``/page/N/`` and ``/login``."""
    if asked.path == "/login":
        return _login(asked)
    found = re.fullmatch(r"/(?:page/(\d{1,4})/)?", asked.path)
    if found is None:
        return None
    session, _, proof = asked.cookies.get("session", "").partition(".")
    return Answer(_page(int(found[1] or 1), is_user=bool(session) and proof == _made("user", session)).encode())


@cache
def quotes(page: int) -> Sequence[Quote]:
    """The quotes of a page, none past the last one."""
    draw = random.Random(4711 + page)
    return [_quote(draw) for _ in range(PER_PAGE if 1 <= page <= PAGES else 0)]


def _quote(draw: random.Random) -> Quote:
    text = f"{sentence(draw, (*FIRST, *SECOND), 6)} — {sentence(draw, (*TOPICS, *FIRST), 7)} & it’s <{draw.choice(SECOND)}>."
    tags = tuple(f"{draw.choice(FIRST)}-{draw.choice(TOPICS)}" for _ in range(draw.randrange(5)))
    return Quote(text, draw.choice(AUTHORS), tags)


def _login(asked: Asked) -> Answer:
    """The form with a new session, or where a right one leads; after a wrong token, name or password the form again."""
    session = asked.cookies.get("session", "").partition(".")[0]
    if asked.method == "POST" and session:
        given = tuple(asked.form.get(key, "") for key in ("username", "password", "csrf_token"))
        if given == (*USER, _made("csrf", session)):
            cookie = f"session={session}.{_made('user', session)}; HttpOnly; Path=/"
            moved = (("Location", "/"), ("Set-Cookie", cookie))
            return Answer(b"<p>Redirecting</p>", status=302, may_gzip=False, headers=moved)
    session = secrets.token_hex(8)
    form = f"""
    <form action="/login" method="post" accept-charset="utf-8">
        <input type="hidden" name="csrf_token" value="{_made("csrf", session)}"/>
        <div class="row"><div class="form-group col-xs-3"><label for="username">Username</label>
            <input type="text" class="form-control" id="username" name="username" /></div></div>
        <div class="row"><div class="form-group col-xs-3"><label for="username">Password</label>
            <input type="password" class="form-control" id="password" name="password" /></div></div>
        <input type="submit" value="Login" class="btn btn-primary" />
    </form>
"""
    cookies = (("Set-Cookie", f"session={session}; HttpOnly; Path=/"),)
    return Answer(_around(form, is_user=False).encode(), may_gzip=False, headers=cookies)


def _made(what: str, session: str) -> str:
    """What only the site can make of a session."""
    return hashlib.sha256(f"{what} {session}".encode()).hexdigest()[:32]


@cache
def _page(number: int, *, is_user: bool) -> str:
    found = "".join(_block(quote, is_user=is_user) for quote in quotes(number)) or "No quotes found!"
    steps = (
        f'<li class="previous"><a href="/page/{number - 1}/"><span aria-hidden="true">&larr;</span> Previous</a></li>'
    )
    on = f'<li class="next"><a href="/page/{number + 1}/">Next <span aria-hidden="true">&rarr;</span></a></li>'
    pager = (steps if number > 1 else "") + (on if 1 <= number < PAGES else "")
    top = "".join(
        f'<span class="tag-item"><a class="tag" href="/tag/{topic}/">{topic}</a></span>\n' for topic in TOPICS
    )
    content = f"""
<div class="row">
    <div class="col-md-8">
{found}
    <nav><ul class="pager">{pager}</ul></nav>
    </div>
    <div class="col-md-4 tags-box">
        <h2>Top Ten tags</h2>
        {top}
    </div>
</div>
"""
    return _around(content, is_user=is_user)


def _block(quote: Quote, *, is_user: bool) -> str:
    tags = "\n\n            ".join(f'<a class="tag" href="/tag/{tag}/page/1/">{tag}</a>' for tag in quote.tags)
    goodreads = f'<a href="http://goodreads.com/author/show/{quote.slug}">(Goodreads page)</a>' if is_user else ""
    text = quote.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"""
    <div class="quote" itemscope itemtype="http://schema.org/CreativeWork">
        <span class="text" itemprop="text">“{text}”</span>
        <span>by <small class="author" itemprop="author">{quote.author}</small>
        <a href="/author/{quote.slug}">(about)</a>
        {goodreads}
        </span>
        <div class="tags">
            Tags:
            <meta class="keywords" itemprop="keywords" content="{",".join(quote.tags)}" /    >

            {tags}

        </div>
    </div>
"""


def _around(content: str, *, is_user: bool) -> str:
    door = '<a href="/logout">Logout</a>' if is_user else '<a href="/login">Login</a>'
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
	<meta charset="UTF-8">
	<title>Quotes, a sample</title>
    <link rel="stylesheet" href="/static/bootstrap.min.css">
    <link rel="stylesheet" href="/static/main.css">
</head>
<body>
    <div class="container">
        <div class="row header-box">
            <div class="col-md-8"><h1><a href="/" style="text-decoration: none">Quotes, a sample</a></h1></div>
            <div class="col-md-4"><p>{door}</p></div>
        </div>
{content}
    </div>
    <footer class="footer"><div class="container">
        <p class="text-muted">Quotes by: <a href="/">nobody</a></p>
        <!-- <div class="quote"><span class="text">Not shown</span><small class="author">Nobody</small></div> -->
    </div></footer>
</body>
</html>
"""
