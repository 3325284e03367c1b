"""``torch.ops.pyfastcal.*`` called directly, past all checks of the entries: an error, never a read out of bounds."""

import pytest
import torch

from pyfastcal.arguments import checks
from pyfastcal.ops import extension

from ..devices import each_device, moved, needs_gpu, run_on
from .test_compile import CALLS

pytestmark = pytest.mark.skipif(extension.C is None, reason="built without the compiled kernels")

WRONG = {
    "a row less": lambda x: x[:-1],
    "a column less": lambda x: x[..., :-1] if x.ndim > 1 else None,
    "no columns": lambda x: x[..., :0] if x.ndim > 1 else None,
    "no rows": lambda x: x[:0],
    "a dimension more": lambda x: x[None],
    "a dimension less": lambda x: x[0],
    "another dtype": lambda x: x.to(torch.int32),
    "float64": lambda x: x.double() if x.dtype == torch.float32 else None,
}
FINE = {  # what is no mistake, by the place of the argument: images, queries and points may be any number
    "knn": {(0, "a row less"), (0, "no rows"), (1, "a row less")},
    "checked_knn": {(0, "a row less"), (0, "no rows"), (1, "a row less"), (0, "a dimension less")},
    "similarity_confidence": {(0, "a row less"), (0, "no rows")},
    "checked_similarity_confidence": {(0, "a row less"), (0, "no rows"), (0, "a dimension less")},
    "divide_logits": {(0, "a row less"), (0, "no rows"), (0, "a dimension less")},
    "similarity": {(0, "a row less"), (0, "no rows"), (1, "a row less")},
    "log_density": {(0, "a row less"), (0, "no rows"), (1, "a row less")},
    "bin_counts": {(0, "float64")},
    "add_rows": {(1, "float64")},
    "nll": {(0, "a column less")},
}


def mistakes():
    for name, make in CALLS.items():
        for i, x in enumerate(make()):
            if isinstance(x, torch.Tensor) and x.ndim:
                for what, change in WRONG.items():
                    if change(x) is not None and (i, what) not in FINE.get(name, ()):
                        yield pytest.param(name, i, change, id=f"{name}-{i}-{what}")


@each_device
@pytest.mark.parametrize(("name", "i", "change"), list(mistakes()))
def test_wrong_shapes_dtypes_and_devices_are_refused(device, name, i, change):
    arguments = list(moved(device, CALLS[name]()))
    arguments[i] = change(arguments[i])
    with pytest.raises(RuntimeError) as caught:
        getattr(torch.ops.pyfastcal, name)(*arguments)
    assert f"pyfastcal::{name}: " in str(caught.value)


def test_the_mistakes_that_are_none():
    for name, fine in FINE.items():
        for i, what in fine:
            arguments = list(CALLS[name]())
            arguments[i] = WRONG[what](arguments[i])
            getattr(torch.ops.pyfastcal, name)(*arguments)


@pytest.mark.parametrize("k", [-1, 0, 10, 2**40])
def test_as_many_neighbours_as_there_are(device, k):
    queries, bank, _, _, normalize = CALLS["knn"]()
    with pytest.raises(RuntimeError, match=r"pyfastcal::knn: k must .*, got"):
        run_on(device, torch.ops.pyfastcal.knn)(queries, bank, k, False, normalize)
    with pytest.raises(RuntimeError, match="k must"):
        run_on(device, torch.ops.pyfastcal.knn)(bank, bank, len(bank), True, normalize)
    with pytest.raises(RuntimeError, match="bank has the wrong number of rows"):
        run_on(device, torch.ops.pyfastcal.knn)(queries, bank, 1, True, normalize)


@pytest.mark.parametrize(
    ("n_bins", "n_groups"), [(0, 1), (10, 0), (-1, 1), (10**9, 1), (2**62, 4), (1, 2**62), (4097, 4096), (1, 2**24 + 1)]
)
def test_as_many_bins_as_can_be_counted(device, n_bins, n_groups):
    confidence, correct = torch.rand(20), torch.rand(20) < 0.5
    with pytest.raises(RuntimeError, match=r"pyfastcal::bin_counts: n_(bins|groups) must .*, got"):
        run_on(device, torch.ops.pyfastcal.bin_counts)(confidence, correct, None, n_bins, None, n_groups, False)


def test_both_halves_count_as_many_cells():
    totals, _ = torch.ops.pyfastcal.bin_counts(
        torch.rand(2), torch.ones(2).bool(), None, 1, None, checks.MOST_CELLS, False
    )
    assert totals.shape == (3, checks.MOST_CELLS, 1)


@pytest.mark.parametrize(("n", "n_bins"), [(100, 10), (5000, 10), (5000, 30), (5000, 100)])
def test_booleans_made_from_bytes(capability, n, n_bins):
    """A byte of 2 or 255 is true too; it must not be taken for a place."""
    confidence, bytes_ = torch.rand(n), torch.arange(n) % 256
    count = torch.ops.pyfastcal.bin_counts
    made = count(confidence, bytes_.to(torch.uint8).view(torch.bool), None, n_bins, None, 1, False)
    assert torch.equal(made[0], count(confidence, bytes_ != 0, None, n_bins, None, 1, False)[0])


@needs_gpu
def test_all_on_one_device():
    for name, make in CALLS.items():
        arguments = moved("cuda", make())
        for i, x in enumerate(arguments):
            if isinstance(x, torch.Tensor):
                mixed = [*arguments[:i], x.cpu(), *arguments[i + 1 :]]
                with pytest.raises(RuntimeError, match="device"):
                    getattr(torch.ops.pyfastcal, name)(*mixed)
