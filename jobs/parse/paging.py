"""Finds the page that follows a page: by ``[next]``, or by ID.py.

following(page, root, base) → Following     a request, nothing at the end, or a warning if a further page can't be asked for
"""

from dataclasses import replace
from typing import Any, Final, NamedTuple
from urllib.parse import urljoin

from jobs.definition.model import Definition
from jobs.origin import origin_of
from jobs.page import Page, Request, next_link
from jobs.parse import markup
from jobs.parse.author_code import Code
from jobs.parse.select import Compiler, Reading, Shape, found_something
from jobs.text import values
from jobs.text.values import BadValue

PAGES_MAX: Final = 1_000  # of a source whose ID.py decides when to stop
NO_ADDRESS: Final = ("javascript:", "#")  # beginnings of links that lead nowhere, as on last pages


class Following(NamedTuple):
    """The next request, or None. ``is_cut``: more pages exist, but can't be asked for."""

    request: Request | None = None
    warning: str = ""
    is_cut: bool = False


class Paging:
    """A definition's ``[next]``, compiled for one thread."""

    def __init__(self, definition: Definition, code: Code | None, compiler: Compiler, page: Shape) -> None:
        self._definition = definition
        self._code = code if code is not None and code.has("next_page") else None
        selector = definition.next.selector if definition.next is not None else None
        self._find = self._place = None
        if selector is not None:
            self._find = compiler.one(selector, page)
            if compiler.is_xml:
                self._place = compiler.located(selector, page, Reading())

    def following(self, page: Page, root: Any, base: str, *, has_rows: bool) -> Following:
        """The request after a page. ``base`` is the base of its addresses. A page without rows is the last one."""
        request, following = page.request, self._definition.next
        if not self.is_any or (not has_rows and not self._is_address):
            return Following()
        try:
            found = self._code.next_page(page) if self._code is not None else self._found(page, root, base)
        except BadValue as error:
            if not has_rows:
                return Following()
            return Following(warning=f"the page after page {request.number} is not asked for: {error}", is_cut=True)
        seen = request.seen | {request.address, page.url}
        if found is None or found.address in seen:
            return Following()
        if not has_rows:
            return Following(
                warning=f"page {request.number} has no rows, and the page that it names as the next is not asked for"
            )
        most = following.max_pages if following is not None else PAGES_MAX
        if request.number >= most:
            may = "is" if self._is_address or self._code is not None else "may be"
            return Following(
                warning=f"page {request.number} is the last that max_pages allows; there {may} a further one"
            )
        return Following(replace(found, number=request.number + 1, seen=seen, again=request.again))

    @property
    def is_any(self) -> bool:
        """Whether the source can have several pages."""
        return self._code is not None or self._definition.next is not None

    @property
    def _is_address(self) -> bool:
        """Whether pages give the address of the next one. Cursors do not count: many sites have one on the last page, too."""
        following = self._definition.next
        return self._code is None and following is not None and not following.param

    @property
    def is_counted(self) -> bool:
        """Whether pages are counted by a param, so that no page says whether another one follows."""
        following = self._definition.next
        return self._code is None and following is not None and self._find is None and not following.link

    def _found(self, page: Page, root: Any, base: str) -> Request | None:
        """The request by ``[next]``. Raises BadValue for a value that is no address, or none for the param."""
        following, request = self._definition.next, page.request
        assert following is not None
        if following.link:
            return self._at(page, page.url, next_link(page.header("link")))
        if self._find is not None:
            found = self._find([root])
            if not found_something(found):
                return None
            text = values.text_of(found)
            if following.param:
                return request.replace(params={**request.params, following.param: text})
            if not isinstance(found, str):
                raise BadValue(found, "an address")
            return self._at(page, self._base_of(root, base), text)
        param = following.param
        given = request.params.get(param) or following.start
        try:
            count = int(given) + following.step
        except ValueError as error:
            raise BadValue(given, f"a whole number in {param}, to count on") from error
        kept = count if self._definition.params[param].type == "int" else str(count)
        return request.replace(params={**request.params, param: kept})

    def _base_of(self, root: Any, base: str) -> str:
        """The base of the address that was found: in XML, that of its own element."""
        placed = self._place([root]) if self._place is not None else []
        return markup.base(placed[0][1], base) if placed else base

    def _at(self, page: Page, base: str, address: str) -> Request | None:
        """A request for an address on a page. Another host gets none of the first request's headers, cookies and body."""
        if not address or address.lower().startswith(NO_ADDRESS):
            return None
        try:
            url = urljoin(base, address)
            is_home = origin_of(url) == origin_of(page.request.url)
        except ValueError as error:
            raise BadValue(address, "an http or https address") from error
        request = replace(page.request, method="GET", url=url.partition("#")[0], body=None)
        if not is_home:
            return replace(request, headers={}, cookies={})
        return replace(request, headers={k: v for k, v in request.headers.items() if k.lower() != "content-type"})
