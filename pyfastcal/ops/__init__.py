"""The typed entry to each op, a file each: validation, then the kernel, or ``reference`` where there is none.

The kernels take float32, float16 and bfloat16, on the CPU and on CUDA devices. float64 input, other devices and
installations without the compiled extension run the plain-torch twin in ``reference``: the same answers, slower.
Results are float32 (float64 for float64 input). Two runs give the same bits. A row's do not depend on the rest of its
batch where a kernel made them; the twin's may, in the last place, as those of torch's matrix product do. Bin counts are
the same bits on every device, with kernels and without.

``confidence``, ``similarity_confidence``, ``similarity`` and ``contrast_distance`` have gradients (see ``gradients``);
``knn``, ``nll`` and ``log_density`` have none, and warn once where one is waited for.

On a GPU nothing here waits for it, so that calls may be captured in a CUDA graph; only a scale that is given as a
tensor must be read.

Non-finite input is an error, and so is a result that its dtype cannot hold. The kernels find both in passing, as a NaN
or an infinity in their result, so that looking for them costs nothing; under ``torch.compile`` and on a GPU it stays
there (see ``arguments.checks``). The only exception are logits of minus infinity, which mask a class.
"""

from .bins import bin_counts, bin_totals, fixed_point_bin_counts
from .confidence import confidence
from .contrast import contrast_distance
from .density import log_density
from .knn import knn
from .nll import nll
from .similarity import similarity
from .similarity_confidence import similarity_confidence

__all__ = [
    "bin_counts",
    "bin_totals",
    "confidence",
    "contrast_distance",
    "fixed_point_bin_counts",
    "knn",
    "log_density",
    "nll",
    "similarity",
    "similarity_confidence",
]
