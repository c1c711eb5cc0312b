"""A real browser for tests of pages: Debian's chromium, driven by playwright. Without chromium such a test is skipped.

Its package without windows is taken where it is there: a page takes 60 % of the processor time.

    def test_x(browser):                       # the fixture ``browser`` of tests/conftest.py
        with browser.tab(port) as tab:         # .page is playwright's page; dark=True, phone=True, session="…"
            tab.open("/sources")
            tab.page.get_by_role("link", name="ecb.rates").click()
            tab.is_accessible()                # axe finds nothing
            tab.fits()                         # no sideways scrolling
        # the end of ``with`` fails the test if the page asked another host, met the content security policy, or threw an error

Waits are playwright's, with a deadline: ``page.wait_for_function``, ``expect(locator).to_have_text`` and the like.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import axe_playwright_python
import pytest
from playwright import sync_api

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--no-first-run", "--disable-default-apps",
)  # fmt: skip
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
SECONDS = 120.0  # of one wait: a busy machine is slow
sync_api.expect.set_options(timeout=SECONDS * 1000)
AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"


class Tab:
    """One page with cookies of its own, and what went wrong in it."""

    def __init__(self, context: sync_api.BrowserContext, origin: str) -> None:
        self.origin, self.context = origin, context
        self.page = context.new_page()
        self.page.set_default_timeout(SECONDS * 1000)
        self.asked: list[str] = []  # addresses that it asked
        self.faults: list[str] = []  # errors of scripts, and what the console of the browser said of them
        self.expected: tuple[str, ...] = ()  # parts of faults that the test means
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("console", self._heard)

    def _heard(self, message: sync_api.ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text}")

    def open(self, path: str) -> None:
        """Goes to a page of the gateway, and waits until it is loaded."""
        self.page.goto(self.origin + path, wait_until="load")

    def text(self) -> str:
        """What a person reads in the page."""
        return self.page.inner_text("main")

    def is_accessible(self) -> None:
        """Fails with what axe finds: every rule that it has for WCAG 2.2 A and AA, and its best practices."""
        if not self.page.evaluate("() => Boolean(window.axe)"):
            self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
        told = [
            f"{one['id']} ({one['impact']}): {one['help']}\n    " + "\n    ".join(node["html"][:200] + " " + node["failureSummary"].replace("\n", " ") for node in one["nodes"][:5])
            for one in found
        ]  # fmt: skip
        assert not told, f"{self.page.url}:\n" + "\n".join(told)

    def fits(self) -> None:
        """Fails if the page must be scrolled sideways."""
        wide, seen = self.page.evaluate(
            "() => [Math.max(document.documentElement.scrollWidth, document.body.scrollWidth), window.innerWidth]"
        )
        assert wide <= seen, f"{self.page.url} is {wide} px wide in a window of {seen} px"

    def press(self, *keys: str) -> None:
        """Presses keys one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def focused(self) -> str:
        """The tag, the name or text of the element that has the focus."""
        return str(
            self.page.evaluate(
                "() => { const e = document.activeElement; return `${e.tagName.toLowerCase()} ${(e.name || e.textContent || '').trim().slice(0, 60)}`; }"
            )
        )

    def shot(self, path: Path | str, *, whole: bool = True) -> None:
        """Writes a PNG of the page."""
        self.page.screenshot(path=path, full_page=whole)

    def check(self) -> None:
        """Fails if the page asked another host, or anything went wrong in it."""
        others = {url for url in self.asked if not url.startswith((f"{self.origin}/", "data:", "blob:"))}
        assert not others, f"asked other hosts: {sorted(others)}"
        faults = [one for one in self.faults if not any(part in one for part in self.expected)]
        assert not faults, "\n".join(faults)


class Browser:
    """A running chromium."""

    def __init__(self, driver: sync_api.Playwright) -> None:
        assert CHROMIUM is not None
        self._browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=list(FLAGS), headless=True, timeout=SECONDS * 1000
        )

    @contextlib.contextmanager
    def tab(
        self, where: int | str, *, dark: bool = False, phone: bool = False, session: str = "", scripts: bool = True
    ) -> Iterator[Tab]:
        """A page at a gateway, by its port or its origin. ``session``: the cookie of a sign-in; without ``scripts`` none run."""
        origin = f"http://127.0.0.1:{where}" if isinstance(where, int) else where
        context = self._browser.new_context(
            viewport=PHONE if phone else DESK,
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
            reduced_motion="reduce",
            accept_downloads=True,
        )
        if session:
            name, _, value = session.partition("=")
            context.add_cookies(
                [{"name": name, "value": value, "domain": urlsplit(origin).hostname or "", "path": "/"}]
            )
        try:
            tab = Tab(context, origin)
            yield tab
            tab.check()
        finally:
            context.close()

    def close(self) -> None:
        """Ends it."""
        self._browser.close()


@contextlib.contextmanager
def running() -> Iterator[Browser]:
    """A browser for as long as it is needed. Skips the test if there is no chromium; one that does not start is an error."""
    if CHROMIUM is None:
        pytest.skip(
            "chromium is not installed here (Debian: chromium-headless-shell); scripts/test without arguments installs it where it may"
        )
    with sync_api.sync_playwright() as driver:
        made = Browser(driver)
        yield made
        made.close()
