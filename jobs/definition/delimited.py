"""How a CSV file is written: its delimiter and quotes, and which line names the columns."""

from msgspec import Struct

from jobs.definition.reader import Table, show


class Csv(Struct, frozen=True, kw_only=True):
    """``header``: the first line names the columns, otherwise ``names`` does. ``skip`` lines come before it.

    With an empty ``quote`` there are no quotes.
    """

    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    names: tuple[str, ...] = ()
    skip: int = 0


def read_csv(definition: Table) -> Csv:
    """``[csv]``."""
    table = definition.table("csv", ("delimiter", "quote", "header", "skip"))
    header = table.get("header", True)
    names_: tuple[str, ...] = ()
    if not isinstance(header, bool):
        names_ = table.texts("header")
        if len(set(names_)) != len(names_):
            table.fault("header", "expected names that differ")
    found = Csv(
        delimiter=table.text("delimiter", ","),
        quote=table.of_type("quote", str, '"', "one character, or an empty text for none"),
        header=header is True,
        names=names_,
        skip=table.whole("skip", 0, high=10_000),
    )
    for key, text in (("delimiter", found.delimiter), ("quote", found.quote or '"')):
        if text and (len(text) != 1 or text in "\r\n"):
            table.fault(key, f"expected one character, found {show(text)}")
    if header is False:
        table.fault("header", "expected true or a list of names, found false")
    return found
