"""A price list of a shop that was never told of UTF-8: windows-1252, called UTF-8 by header and page. All made up."""

import random
from dataclasses import dataclass
from functools import cache
from typing import Final

from scripts.site.pages.page import SECOND, Answer, Asked

ORIGINS: Final = ("charset.example",)
START: Final = "/preisliste.html"
ARTICLES: Final = 60
THINGS: Final = ("Gießkanne", "Türschloß", "Öllampe", "Crème brûlée", "Jalapeños", "Kännchen", "„Große“ Schüssel")
NOTES: Final = ("", "solange Vorrat reicht", "für draußen – nicht für drinnen", "größer als früher", "nur 10 % übrig")


@dataclass(frozen=True)
class Article:
    """``cents`` of a price that is written the German way; ``note`` is "" for none."""

    number: str
    name: str
    cents: int
    note: str


def answer(asked: Asked) -> Answer | None:
    """The list; nothing else is here."""
    return Answer(_page(), "text/html; charset=UTF-8") if asked.path == START else None


@cache
def articles() -> list[Article]:
    """What the shop sells."""
    draw = random.Random(1252)
    return [
        Article(f"A-{1000 + index}", f"{draw.choice(THINGS)} {draw.choice(SECOND)}", draw.randrange(99, 400_000), draw.choice(NOTES))
        for index in range(ARTICLES)
    ]  # fmt: skip


@cache
def _page() -> bytes:
    rows = "".join(map(_row, articles()))
    return f"""<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 4.01 Transitional//EN">
<HTML>
<HEAD>
<META HTTP-EQUIV="Content-Type" CONTENT="text/html; charset=UTF-8">
<TITLE>Preisliste – ein Muster</TITLE>
</HEAD>
<BODY BGCOLOR=#FFFFFF>
<TABLE WIDTH=100%><TR CLASS=artikel><TD CLASS=nr>Z-1<TD CLASS=name>Nur Werbung<TD CLASS=preis>0,00 €</TABLE>
<CENTER><H1>Schöne Dinge für Küche &amp; Garten</H1></CENTER>
<TABLE CLASS="preise" BORDER=1 CELLPADDING=2>
<TR><TH>Nr.<TH>Artikel<TH>Preis<TH>Bemerkung
{rows}</TABLE>
<P>Alle Preise in €, zuzüglich Versand. © Müßig &amp; Söhne
</BODY>
</HTML>
""".encode("windows-1252")


def _row(article: Article) -> str:
    euros = f"{article.cents // 100:,}".replace(",", ".")
    return f"""<TR CLASS="artikel" BGCOLOR=#EEEEEE>
<TD CLASS="nr" ALIGN=right><FONT FACE="Arial" SIZE=2>{article.number}</FONT>
<TD CLASS="name"><FONT FACE="Arial" SIZE=2><B>{article.name}</B></FONT>
<TD CLASS="preis" ALIGN=right NOWRAP><FONT FACE="Arial" SIZE=2>{euros},{article.cents % 100:02d}&nbsp;€</FONT>
<TD CLASS="bemerkung"><FONT FACE="Arial" SIZE=1>{article.note or "&nbsp;"}</FONT>
"""
