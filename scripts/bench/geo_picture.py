"""The picture of what ``bench geo`` measured, for README: an SVG without scripts, which is read on white and on black."""

from collections.abc import Callable, Iterator
from html import escape
from typing import Final

from scripts.bench.geo import BUSY, NEW, Cell, Measured, Side
from scripts.terminal import size

WIDTH: Final = 840
TOP: Final = 84  # of the first page's bars
ROW: Final = 58  # of a page
BAR: Final = 15
BOTTOM: Final = 40
TIME, BYTES = (140, 200), (490, 190)  # of a panel: where its bars begin, and their greatest length
# The colours of bars suit both backgrounds; those of texts follow the reader's scheme.
STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:16px}.less{fill:#57606a;font-size:12px}"
    ".direct{fill:#8b949e}.region{fill:#2da44e}.new{fill-opacity:.4}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.less{fill:#9198a1}}"
)


def drawn(found: Measured) -> str:
    """For each page two bars of time and two of bytes. Their lighter ends are what new connections take more."""
    shown = found.middle_rtt_ms
    pairs = [(found.cell(page, shown, BUSY), found.cell(page, shown, NEW)) for page in found.pages]
    rows = [(busy, new) for busy, new in pairs if busy is not None and new is not None]
    height = TOP + ROW * len(rows) + BOTTOM
    title = f"Pages from across an ocean, {shown:g} ms away"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        _text(0, 18, title, "title"),
        _box(0, 33, 14, "direct"),
        _text(20, 45, "fetched from the hub"),
        _box(170, 33, 14, "region"),
        _text(190, 45, "through the region"),
        _box(330, 33, 14, "direct new"),
        _box(348, 33, 14, "region new"),
        _text(370, 45, "more with new connections"),
        _text(TIME[0], 74, "ms until the records are there", "less"),
        _text(BYTES[0], 74, "bytes across the ocean, both ways", "less"),
        *_panel(TIME, rows, _median_ms, lambda ms: f"{ms:.0f}"),
        *_panel(BYTES, rows, _bytes, size),
    ]
    for number, (busy, _) in enumerate(rows):
        name, _, more = busy.title.partition(", ")
        parts.append(_text(0, TOP + ROW * number + 13, name))
        parts += [_text(0, TOP + ROW * number + 31, more, "less")] * bool(more)
    words = "Figures: connections that are in use / new ones. TLS; protocols included. Measured by nearfetch bench geo."
    return "\n".join([*parts, _text(0, height - 10, words, "less"), "</svg>"]) + "\n"


def _panel(
    place: tuple[int, int], rows: list[tuple[Cell, Cell]], of: Callable[[Side], float], written: Callable[[float], str]
) -> Iterator[str]:
    """The bars of one quantity: for each page (its cells with busy and new connections) one of each side, with its figures."""
    left, length = place
    most = max((of(side) for pair in rows for cell in pair for side in (cell.direct, cell.region)), default=1.0)
    for number, (busy, new) in enumerate(rows):
        y = TOP + ROW * number
        for name, sides in (("direct", (busy.direct, new.direct)), ("region", (busy.region, new.region))):
            low, high = sorted(length * of(side) / most for side in sides)
            yield _box(left, y, high, f"{name} new")
            yield _box(left, y, low, name)
            yield _text(left + high + 6, y + 12, " / ".join(written(of(side)) for side in sides))
            y += BAR + 4


def _median_ms(side: Side) -> float:
    return side.median_ms


def _bytes(side: Side) -> float:
    return side.bytes_a_call


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    styled = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{styled}>{escape(words)}</text>'


def _box(x: float, y: float, length: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.0f}" y="{y:.0f}" width="{max(1.0, length):.1f}" height="{BAR}" rx="2"/>'
