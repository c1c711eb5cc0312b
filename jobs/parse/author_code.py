"""Calls the functions of an author's ID.py: ``request(params)``, ``parse(page)``, ``next_page(page)``.

Only workers run them. An error in one becomes a ParseFailed of its source.
"""

import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from jobs.errors import ParseFailed, TaskError
from jobs.origin import origin_or_none
from jobs.page import Page, Request
from regions.faults import Fault, Faults


class Code:
    """The functions of one ID.py, loaded for one thread."""

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        self._name = path.name
        module = ModuleType(f"nearfetch_source_{path.stem}")
        module.__file__ = str(path)
        try:
            exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)  # noqa: S102 - code of the source's author
        except (Exception, SystemExit) as error:
            raise Faults([Fault(path.name, _line(error, path), "", f"{type(error).__name__}: {error}")]) from error
        self._functions: dict[str, Callable[..., Any]] = {name: getattr(module, name) for name in names}

    def has(self, name: str) -> bool:
        """Whether ID.py defines a function."""
        return name in self._functions

    def request(self, params: Mapping[str, Any]) -> Request:
        """The first request."""
        return self._checked("request", self._call("request", dict(params)), Request)

    def parse(self, page: Page) -> Iterator[dict[str, Any]]:
        """The rows of a page."""
        found = self._call("parse", page)
        try:
            for row in found:
                if not isinstance(row, dict):
                    raise ParseFailed(f"expected rows of keys from {self._name}, found {type(row).__name__}")
                yield row
        except TaskError:
            raise
        except Exception as error:
            raise self._failed("parse", error) from error

    def next_page(self, page: Page) -> Request | None:
        """The next request; None if there is none."""
        found = self._call("next_page", page)
        return None if found is None else _without_ours(self._checked("next_page", found, Request), page.request)

    def _call(self, name: str, argument: Any) -> Any:
        try:
            return self._functions[name](argument)
        except TaskError:
            raise
        except Exception as error:
            raise self._failed(name, error) from error

    def _checked(self, name: str, found: Any, kind: type[Request]) -> Request:
        if not isinstance(found, kind):
            raise ParseFailed(f"expected a Request from {name} of {self._name}, found {type(found).__name__}")
        return found

    def _failed(self, name: str, error: Exception) -> ParseFailed:
        lines = [str(frame.lineno) for frame in traceback.extract_tb(error.__traceback__) if frame.name == name]
        place = f":{lines[-1]}" if lines else ""
        return ParseFailed(f"{self._name}{place}: {name} failed: {type(error).__name__}: {error}")


def _without_ours(found: Request, request: Request) -> Request:
    """ID.py's next request. For another host, without the previous request's headers, cookies and body, which may hold secrets."""
    if origin_or_none(found.url) == origin_or_none(request.url):
        return found
    headers = {name: text for name, text in found.headers.items() if request.headers.get(name) != text}
    cookies = {name: text for name, text in found.cookies.items() if request.cookies.get(name) != text}
    return replace(found, headers=headers, cookies=cookies, body=None if found.body == request.body else found.body)


def _line(error: BaseException, path: Path) -> int | None:
    if isinstance(error, SyntaxError):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else None
