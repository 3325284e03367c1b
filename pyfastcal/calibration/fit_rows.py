"""The rows that a fit learns from."""

from torch import Tensor

from ..arguments import checks


def labelled(ignore_index: int | None, labels: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
    """``labels`` (N,) and ``rows`` (N, ...) without those whose label is ``ignore_index``, as in torch's
    ``cross_entropy``; all of them where that is None. What does not fit together is left to the checks that follow."""
    if ignore_index is None:
        return labels, *rows
    ignore_index = checks.integer("ignore_index", ignore_index, -(2**63), 2**63 - 1)
    checks.tensor("labels", labels, 1)
    if labels.dtype.is_floating_point or any(
        not isinstance(x, Tensor) or x.shape[:1] != labels.shape or x.device != labels.device for x in rows
    ):
        return labels, *rows
    kept = labels.long() != ignore_index
    if bool(kept.all()):
        return labels, *rows
    if not bool(kept.any()):
        raise ValueError(f"labels must hold others than ignore_index={ignore_index}, got {len(labels)} of it alone")
    return labels[kept], *(x[kept] for x in rows)
