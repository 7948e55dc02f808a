"""Text in columns, for a terminal."""

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[str]], right: slice = slice(0)) -> list[str]:
    """Lines of cells in columns two spaces apart.

    Args:
        rows: their cells, as many in each.
        right: columns that are aligned to the right, as numbers are; all others are to the left.

    Raises:
        ValueError: when a row has more or fewer cells than another.
    """
    rows = list(rows)
    columns = [list(column) for column in zip(*rows, strict=True)]
    numbers = range(len(columns))[right]
    for index, column in enumerate(columns):
        width = max(map(len, column))
        columns[index] = [
            cell.rjust(width) if index in numbers else cell.ljust(width) for cell in column
        ]
    return ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
