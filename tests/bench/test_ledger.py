"""The last line of the ledger's benchmark, which others read."""

from bench.ledger_site import Books


def test_the_last_line_tells_what_all_parts_found() -> None:
    books = Books(1, 0, 2, 0) + Books(1, 3, 0, 4)
    assert str(books) == "lost 2, duplicated 3, over-admitted 2, drift 4"
