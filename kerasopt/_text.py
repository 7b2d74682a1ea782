"""Text from files and paths, which may hold anything, as a terminal may show it."""

from collections.abc import Sequence

_LONGEST = 48


def printable(text: object) -> str:
    """Replaces what a terminal would obey and not show, such as escape sequences, with `?`."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in str(text))


def one_line(text: object, longest: int = _LONGEST) -> str:
    """Returns text for a cell of a table: printable, on one line, its beginning cut if need be."""
    whole = str(text)
    line = "".join(c if c.isprintable() else "?" for c in whole[-longest:])
    return line if len(whole) <= longest else "…" + line[1:]


def ruled(rows: Sequence[Sequence[str]], *, texts: int) -> list[str]:
    """Returns the lines of a table: the first row, a rule, the others.

    Plain code and not rich, for names from a file must not be taken for markup, and a file may
    have many thousands of rows.

    Args:
        rows: the cells, headings first.
        texts: how many columns stand on the left; the others on the right.
    """
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        blanks = [" " * (width - cell_len(x)) for width, x in zip(widths, row, strict=True)]
        left = [x + blank for x, blank in zip(row[:texts], blanks[:texts], strict=True)]
        right = [blank + x for x, blank in zip(row[texts:], blanks[texts:], strict=True)]
        return ("  " + "   ".join([*left, *right])).rstrip()

    rule = " " + "─" * (sum(widths) + 3 * len(widths) - 1)
    return [line(rows[0]), rule, *map(line, rows[1:])]
