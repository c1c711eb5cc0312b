"""How a CSV file is written: its delimiter and quotes, and which line names the columns."""

from typing import Any

from msgspec import Struct

from jobs.definition.reader import Reader, Where, show


class Csv(Struct, frozen=True, kw_only=True):
    """``header``: the first line names the columns, otherwise ``names`` does. ``skip`` lines come before it.

    With an empty ``quote`` there are no quotes.
    """

    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    names: tuple[str, ...] = ()
    skip: int = 0


def read_csv(reader: Reader, given: Any) -> Csv:
    """``[csv]``."""
    where: Where = ("csv",)
    raw = reader.table(given, where, ("delimiter", "quote", "header", "skip"))
    header = raw.get("header", True)
    names_: tuple[str, ...] = ()
    if not isinstance(header, bool):
        names_ = reader.texts(raw, "header", where)
        if len(set(names_)) != len(names_):
            reader.fault((*where, "header"), "expected names that differ")
    found = Csv(
        delimiter=reader.text_at(raw, "delimiter", where, ","),
        quote=reader.of_type(raw, "quote", where, str, '"', "one character, or an empty text for none"),
        header=header is True,
        names=names_,
        skip=reader.whole(raw, "skip", where, 0, high=10_000),
    )
    for key, text in (("delimiter", found.delimiter), ("quote", found.quote or '"')):
        if text and (len(text) != 1 or text in "\r\n"):
            reader.fault((*where, key), f"expected one character, found {show(text)}")
    if header is False:
        reader.fault((*where, "header"), "expected true or a list of names, found false")
    return found
