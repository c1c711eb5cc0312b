"""An origin that takes its time: three seconds, or ``?seconds=``; then 4 KB of HTML with a table of three rows."""

from functools import cache
from typing import Final

from scripts.site.pages.page import Answer, Asked, delay

ORIGINS: Final = ("slow.example",)
SECONDS: Final = 3.0
BODY_BYTES: Final = 4_000
ROWS: Final = (("Amber Harbor", "4.25", "open"), ("Iron Meadow", "11.90", "closed"), ("Glass Tower", "0.75", "open"))


def answer(asked: Asked) -> Answer | None:
    """The table, late."""
    return Answer(_table(), delay_seconds=delay(asked.query, SECONDS)) if asked.path in ("/", "/index.html") else None


@cache
def _table() -> bytes:
    rows = "\n".join(
        f"""        <tr class="item" id="item-{number}">
          <td class="name"><a href="/items/{number}">{name}</a></td>
          <td class="price">{price}</td>
          <td class="state">{state}</td>
        </tr>"""
        for number, (name, price, state) in enumerate(ROWS, 1)
    )
    head = """<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>A slow page</title>
    <style>
"""
    style = "      .item td { padding: 0.25rem 0.5rem; border-bottom: 1px solid #ccc; }\n"
    body = f"""    </style>
  </head>
  <body>
    <h1>A slow page</h1>
    <table class="items">
      <thead><tr><th>Name</th><th>Price</th><th>State</th></tr></thead>
      <tbody>
{rows}
      </tbody>
    </table>
  </body>
</html>
"""
    lines = (BODY_BYTES - len(head) - len(body)) // len(style)
    return (head + style * lines + body).encode()
