"""A shop of made-up books in fifty categories, twenty books a page of 51 KB: much white space, deep lists, few data.

Categories have from one book to eighty-five; ``poetry_23`` has exactly one full page.
"""

import html
import random
import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from scripts.site.pages.page import FIRST, SECOND, Answer, Asked

ORIGINS: Final = ("books.toscrape.com",)
PER_PAGE: Final = 20
RATINGS: Final = ("One", "Two", "Three", "Four", "Five")
CATEGORIES: Final = (
    "Travel", "Puzzles", "Gardening", "Mathematics", "Architecture", "Sailing", "Astronomy", "Cooking", "Essays",
    "Fables", "Weather", "Chess", "Typography", "Railways", "Letters", "Maps", "Drama", "Biology", "Photography",
    "Carpentry", "Fiction", "Poetry", "Geology", "Music", "Sewing", "Birds", "Diaries", "Mountains", "Radio", "Rivers",
    "Satire", "Sociology", "Tea", "Theatre", "Toys", "Trees", "Water", "Weaving", "Whales", "Winter", "Wood",
    "Writing", "Bicycles", "Bread", "Bridges", "Clocks", "Comets", "Islands", "Lighthouses", "Libraries",
)  # fmt: skip
SIZES: Final = (11, 32, 20, 1, 45, 20, 7, 19, 85, 16)  # of categories 2, 3, …, again and again
_LISTING: Final = re.compile(r"/catalogue/category/books/([a-z]+)_(\d+)/(?:index|page-([1-9]\d?))\.html")


@dataclass(frozen=True)
class Book:
    """``price`` is in pounds, as it is written; ``rating`` is from 1 to 5; ``slug`` is what its address has."""

    title: str
    slug: str
    image: str
    rating: int
    price: str


def size(number: int) -> int:
    """How many books category ``number`` (from 2) has."""
    return PER_PAGE if number == CATEGORIES.index("Poetry") + 2 else SIZES[(number - 2) % len(SIZES)]


def answer(asked: Asked) -> Answer | None:
    """A page of a category; what does not exist is None."""
    found = _LISTING.fullmatch(asked.path)
    if found is None:
        return None
    slug, number, page = found[1], int(found[2]), int(found[3] or 1)
    if not 2 <= number < len(CATEGORIES) + 2 or _slug(number) != f"{slug}_{number}":
        return None
    body = listing(number, page)
    return Answer(body) if body else None


@cache
def listing(number: int, page: int) -> bytes:
    """The HTML of one page of a category, empty past its end."""
    count = size(number)
    last = -(-count // PER_PAGE)
    if page > last:
        return b""
    first = (page - 1) * PER_PAGE
    pods = [_pod(book) for book in books(number)[first : first + PER_PAGE]]
    name = CATEGORIES[number - 2]
    return (_head(name) + _results(count, first, len(pods)) + "".join(pods) + _tail(page, last)).encode()


def _slug(number: int) -> str:
    return f"{CATEGORIES[number - 2].lower()}_{number}"


@cache
def books(number: int) -> list[Book]:
    """The books of category ``number``, in order."""
    return [_book(number, index) for index in range(size(number))]


def _book(number: int, index: int) -> Book:
    draw = random.Random(number * 1000 + index)
    kinds = (
        "The {} {}", "A {} {} in Winter", "Letters from the {} {}: a Reader's Companion", "{} {} & Other Stories",
        "Under the {} {} (Volume 2)",
    )  # fmt: skip
    title = draw.choice(kinds).format(draw.choice(FIRST).title(), draw.choice(SECOND).title())
    slug = re.sub(r"[^a-z]+", "-", title.lower()).strip("-") + f"_{number * 100 + index}"
    image = f"{draw.getrandbits(128):032x}"
    rating = RATINGS.index(draw.choice(RATINGS)) + 1
    return Book(title, slug, image, rating, f"{draw.randrange(1000, 6000) / 100:.2f}")


def _pod(book: Book) -> str:
    image = book.image
    full = html.escape(book.title)
    short = full if len(book.title) <= 22 else html.escape(book.title[:18]) + "..."
    link = f"../../../{book.slug}/index.html"
    stars = '                    <i class="icon-star"></i>\n' * 5
    return f"""                        <li class="col-xs-6 col-sm-4 col-md-3 col-lg-3">






    <article class="product_pod">
        
            <div class="image_container">
                
                    
                    <a href="{link}"><img src="../../../../media/cache/{image[:2]}/{image[2:4]}/{image}.jpg" \
alt="{full}" class="thumbnail"></a>
                    
                
            </div>
        

        
            
                <p class="star-rating {RATINGS[book.rating - 1]}">
{stars}                </p>
            
        

        
            <h3><a href="{link}" title="{full}">{short}</a></h3>
        

        
            <div class="product_price">
                






    
        <p class="price_color">£{book.price}</p>
    

<p class="instock availability">
    <i class="icon-ok"></i>
    
        In stock
    
</p>

                
                    






    
    <form>
        <button type="submit" class="btn btn-primary btn-block" data-loading-text="Adding...">Add to basket</button>
    </form>


                
            </div>
        
    </article>

</li>
                    
"""  # noqa: W293 - the white space is the density of such pages


def _results(count: int, first: int, shown: int) -> str:
    to = f" - showing <strong>{first + 1}</strong> to <strong>{first + shown}</strong>" if count > PER_PAGE else ""
    return f"""
    <form method="get" class="form-horizontal">
        
        <div style="display:none">
            
            
        </div>

        
            
                <strong>{count}</strong> results{to}.
            
            
        
    </form>

    
        <section>
            <div class="alert alert-warning" role="alert"><strong>Warning!</strong> This is a sample made for tests.\
 Prices and ratings here were randomly assigned.</div>

            <div>
                <ol class="row">
                    
"""  # noqa: W293


def _head(name: str) -> str:
    links = "".join(
        f"""
                    <li>
                        <a href="../{_slug(number)}/index.html">
                            
                                {"<strong>" + entry + "</strong>" if entry == name else entry}
                            
                        </a>

                        </li>
                        
                        
                        
                    
                """  # noqa: W293
        for number, entry in enumerate(CATEGORIES, 2)
    )
    return f"""<!DOCTYPE html>
<html lang="en-us" class="no-js">
    <head>
        <title>
    {name} |
     Books, a sample
</title>

        <meta http-equiv="content-type" content="text/html; charset=UTF-8" />
        <meta name="description" content="" />
        <meta name="viewport" content="width=device-width" />
        <meta name="robots" content="NOARCHIVE,NOCACHE" />

        <link rel="stylesheet" type="text/css" href="../../../../static/oscar/css/styles.css" />
        <link rel="stylesheet" type="text/css" href="../../../../static/oscar/css/datetimepicker.css" />
    </head>

    <body id="default" class="default">
    <header class="header container-fluid">
        <div class="page_inner">
            <div class="row">
                <div class="col-sm-8 h1"><a href="../../../../index.html">Books</a><small> a sample</small>
</div>
            </div>
        </div>
    </header>

<div class="container-fluid page">
    <div class="page_inner">
    <ul class="breadcrumb">
        <li>
            <a href="../../../../index.html">Home</a>
        </li>
        <li>
            <a href="../../books_1/index.html">Books</a>
        </li>
        <li class="active">{name}</li>
    </ul>

        <div class="row">

            <aside class="sidebar col-sm-4 col-md-3">
                <div id="promotions_left">
                </div>
        <div class="side_categories">
            <ul class="nav nav-list">
                    <li>
                        <a href="../../books_1/index.html">
                                Books
                        </a>
                        <ul>
{links}
                    </ul></li>
            </ul>
        </div>
            </aside>

            <div class="col-sm-8 col-md-9">
                <div class="page-header action">
                    <h1>{name}</h1>
                </div>

<div id="messages">

</div>
                <div id="promotions">
                </div>
"""


def _tail(page: int, last: int) -> str:
    steps = ""
    if last > 1:
        before = "index" if page == 2 else f"page-{page - 1}"
        back = f'\n                <li class="previous"><a href="{before}.html">previous</a></li>' if page > 1 else ""
        on = f'\n                <li class="next"><a href="page-{page + 1}.html">next</a></li>' if page < last else ""
        steps = f"""
    <div>
        <ul class="pager">{back}
            <li class="current">
            
                Page {page} of {last}
            
            </li>{on}
        </ul>
    </div>
"""  # noqa: W293
    return f"""                </ol>
{steps}
            </div>
        </section>
            </div>

        </div><!-- /row -->
    </div><!-- /page_inner -->
</div><!-- /container-fluid -->

<footer class="footer container-fluid">
</footer>
            <script src="../../../../static/oscar/js/jquery/jquery-1.9.1.min.js"></script>
    <script type="text/javascript" src="../../../../static/oscar/js/bootstrap3/bootstrap.min.js"></script>
    <script src="../../../../static/oscar/js/oscar/ui.js" type="text/javascript" charset="utf-8"></script>
        <script type="text/javascript">
            $(function() {{
    oscar.init();
    oscar.search.init();
            }});
        </script>
    </body>
</html>
"""
