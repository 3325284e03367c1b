"""Sums that never overflow and never round: counts and fixed-point numbers in int64, over any number of rows.

A table is four rows of int64 over T cells, (4, T): count, correct, whole, low. The confidences of a cell sum to
``whole + low * 2^-32`` with ``0 <= low < 2^32``: ``whole`` never exceeds the count, so a table is exact for up to 2^63
rows. Tables of parts of a stream add up to the table of all of it (:func:`carry` makes ``low`` less than 2^32 again),
whatever the order or the split.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

COUNT, CORRECT, WHOLE, LOW = range(4)
BITS = 32
ONE = 1 << BITS
MASK = ONE - 1


def to_fixed(values: Tensor) -> Tensor:
    """``values * 2^32`` rounded to even, int64, of float64 values in [0, 1]: what a row adds."""
    # 1.5 * 2^20 puts the last bit of the mantissa at 2^-32: the addition rounds there
    return (values + 1572864.0).view(torch.int64) - 0x4138000000000000


def carry(whole: Tensor, low: Tensor) -> None:
    """Move what ``low`` holds beyond 32 bits to ``whole``, in place."""
    whole += low >> BITS
    low &= MASK


def add_totals(table: Tensor, totals: Tensor) -> None:
    """Add ``totals`` (3, T), as ``ops.fixed_point_bin_counts`` gives them, to ``table`` (4, T), in place."""
    table[:WHOLE] += totals[:2]
    table[LOW] += totals[2]
    carry(table[WHOLE], table[LOW])


def add_rows(table: Tensor, cell: Tensor, values: Sequence[Tensor]) -> None:
    """Add rows, each to its ``cell`` (N,) of ``table`` (4, T), in place: work per row, none per cell.

    ``values``: counts, correct and fixed-point numbers, pieces that together make (3 N,). All int64, fewer than 2^30
    rows; ``table`` is contiguous.
    """
    flat, size = table.view(-1), table.shape[1]
    low = cell + LOW * size
    flat.index_add_(0, torch.cat([cell, cell + CORRECT * size, low]), torch.cat(values))
    # gather and scatter: indexing would wake threads for a few thousand rows
    sums, whole = flat.gather(0, low), cell + WHOLE * size
    carried = flat.gather(0, whole) + (sums >> BITS)
    flat.scatter_(0, torch.cat([whole, low]), torch.cat([carried, sums & MASK]))  # rows of a cell write the same number


def total(whole: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """The exact sum of fixed-point numbers (T,), again as (whole, low), each 0-d."""
    lows = low.sum()
    return whole.sum() + (lows >> BITS), lows & MASK


def absolute(whole: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """``|whole + low 2^-32|`` as (whole, low)."""
    negative = whole < 0
    borrowed = (low > 0).long()
    return torch.where(negative, -whole - borrowed, whole), torch.where(negative, -low & MASK, low)


def to_float(whole: Tensor, low: Tensor) -> Tensor:
    """float64, rounded once where ``|whole| < 2^53``."""
    return whole.double() + low.double() * 2.0**-BITS
