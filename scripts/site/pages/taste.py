"""Recipes as JSON-LD in pages of 30 KB: the node is half null, and other nodes and scripts stand around it. All made up."""

import html
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from scripts.site.pages.page import FIRST, SECOND, TOPICS, Answer, Asked, sentence

ORIGINS: Final = ("www.tasteatlas.com",)
START: Final = "/pastel-de-nata/recipe"
HOST: Final = "https://www.tasteatlas.com"
_PATH: Final = re.compile(r"/([a-z-]+)/recipe")


@dataclass(frozen=True)
class Recipe:
    """``name`` is "" where only the page's h1 has it; ``are_objects``: its steps are nodes of their own."""

    name: str
    heading: str
    minutes: tuple[int, int]
    ingredients: Sequence[str]
    steps: Sequence[str]
    about: str
    are_objects: bool = False


RECIPES: Final = {
    "pastel-de-nata": Recipe(
        "Pastel de nata",
        "Pastel de nata Authentic Recipe",
        (75, 20),
        ("FOR THE PASTRY", "290g (10.2 oz) flour", "¼ tsp salt", "FOR THE CUSTARD", "40g sugar & cinnamon", "6 egg yolks"),
        ("Mix flour, salt and water.", "Rest the dough for 10–15 minutes.", "Bake at 280°C until it is <dark>."),
        "The made-up recipe of a sample. It takes a day.",
    ),
    "salt-soup": Recipe(
        "",
        "Salt soup",
        (5, 130),
        ("1 l water", "salt"),
        ("Boil.", "Salt.", "Wait."),
        "For those who have nothing else.",
        are_objects=True,
    ),
}  # fmt: skip


def answer(asked: Asked) -> Answer | None:
    """A recipe's page."""
    found = _PATH.fullmatch(asked.path)
    recipe = RECIPES.get(found[1]) if found else None
    return Answer(_page(found[1], recipe).encode()) if found and recipe else None


def image(slug: str) -> str:
    """The first picture's address."""
    return f"https://cdn.tasteatlas.com/images/recipes/{slug}.jpg"


def _node(slug: str, recipe: Recipe) -> dict[str, Any]:
    steps: list[Any] = list(recipe.steps)
    if recipe.are_objects:
        steps = [{"@type": "HowToStep", "name": f"Step {n}", "text": step} for n, step in enumerate(steps, 1)]
    nothing = dict.fromkeys(
        ("additionalType", "alternateName", "sameAs", "url", "award", "character", "editor", "genre")
    )
    prepare, cook = (f"PT{minutes // 60}H{minutes % 60}M" for minutes in recipe.minutes)
    return {
        "@context": "http://schema.org", "@type": "Recipe", "name": recipe.name or None,
        "description": f"<p>{recipe.about.replace('. ', '.&nbsp;')}</p>", **nothing,
        "image": [image(slug), f"https://cdn.tasteatlas.com/images/dishes/{slug}.jpg"],
        "author": {"@context": "http://schema.org", "@type": "Organization", "name": "A sample", **nothing},
        "aggregateRating": {"@type": "AggregateRating", "ratingValue": 4.5, "ratingCount": 143, **nothing},
        "prepTime": prepare, "cookTime": cook, "recipeCategory": "Sweet Pastry", "recipeCuisine": "Portuguese",
        "recipeIngredient": list(recipe.ingredients), "recipeInstructions": steps, "recipeYield": "12 servings",
    }  # fmt: skip


def _page(slug: str, recipe: Recipe) -> str:
    draw = random.Random(slug)
    crumbs = {
        "@context": "https://schema.org",
        "@graph": [
            {"@type": "BreadcrumbList", "name": "Not a recipe"},
            {"@type": "WebPage", "about": {"@type": "Thing", "name": "Recipe"}},
        ],
    }
    fonts = "".join(
        f'<link rel="preload" as="font" href="/Content/layout-shared/layout/fonts/{word}/{word}-Bold.ttf" '
        'type="font/ttf" crossorigin="anonymous">\n'
        for word in FIRST
    )
    cards = "".join(
        f"""
            <div class="swiper-slide" ng-class="{{active: true}}">
                <a href="{draw.choice(FIRST)}-{draw.choice(SECOND)}/recipe" class="card">
                    <div class="h2">{sentence(draw, SECOND, 2)} with {draw.choice(TOPICS)}</div>
                    <p>{sentence(draw, (*FIRST, *SECOND, *TOPICS), 30)}.</p>
                </a>
            </div>
"""
        for _ in range(40)
    )
    return f"""<!doctype html>
<html>
<head>
{fonts}
<base href="/">
<meta charset="utf-8" />
<title>{html.escape(recipe.heading)} | a sample</title>
<link rel="alternate" href="{HOST}/de/{slug}" hreflang="de" />
<link rel="canonical" href="{HOST}/{slug}/recipe" />
<script type="application/ld+json">{json.dumps(crumbs)}</script>
<script type="text/template">{{"@type": "Recipe", "name": "{{{{ name }}}}", "recipeIngredient": ["nothing"]}}</script>
<script type="application/ld+json">

                {json.dumps(_node(slug, recipe), ensure_ascii=False)}

</script>
</head>
<body ng-app="app">
<div class="h1">Recipes</div>
<h1 class="h1 h1--center">
    {html.escape(recipe.heading)}
</h1>
<div class="swiper-wrapper">{cards}</div>
<form id="search-form" action="/search"><input name="q"></form>
</body>
</html>
"""
