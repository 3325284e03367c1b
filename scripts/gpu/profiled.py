"""Launches the kernels that are worth a look with a profiler, on the benchmarks' data, large enough to fill a GPU.

    ncu --kernel-name regex:... python -m scripts.gpu.profiled [--quick] [--device cuda]

Each call is made once, without a warm-up: a profiler launches the kernels that it looks at several times itself.
"""

import argparse

import torch

import pyfastcal as fc
from benchmarks import bins, confidence, contrast, data, knn, nll, products, similarity, similarity_confidence

# The kernels, as a regular expression of their names, and works for them; two waves of 128 queries for knn.
KERNELS = "^(confidence_of_short_rows|count_bins|nll_of_short_rows|predict|scan|[a-z_]+_by_warpgroups)$"
WORKS = (
    (bins, (100_000_000, "fp32")),
    (nll, (1_000_000, 1000, "fp32")),
    (confidence, (1_000_000, 1000, "fp32")),
    (similarity_confidence, (500_000, 512, 1000, 2, "bf16")),
    (knn, (33_792, 1_280_000, 512, 10, "bf16")),
)
# By warpgroups, and how many kernels of these names a work launches: with class weights one for each number of sums
# that there may be, of which one does the work.
BY_WARPGROUPS = (
    (similarity_confidence, (500_000, 512, 1000, 0, "bf16"), 1),
    (similarity_confidence, (500_000, 512, 1000, 2, "bf16"), 4),
    (similarity, (200_000, 512, 1000, "bf16"), 1),
    (contrast, (250_000, 512, 1000, "bf16", False), 1),
    (knn, (33_792, 1_280_000, 512, 10, "bf16"), 1),
)
LAUNCHES = len(WORKS) + sum(launches for *_, launches in BY_WARPGROUPS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="the benchmarks' small sizes")
    options = parser.parse_args()
    works = [(*work, "mma") for work in WORKS] + [(module, size, "wgmma") for module, size, _ in BY_WARPGROUPS]
    for module, size, product in works:
        size = module.GPU_QUICK[0] if options.quick else size
        if module is confidence:  # whose case counts bins too
            fc.confidence(data.clip_logits(*size[:2], device=options.device)[0])
        else:
            products.by(product, module.case(size, options.device).ours)()
        if options.device == "cuda":
            torch.cuda.synchronize()
        print(f"{module.work(size)}, {product}: done", flush=True)


if __name__ == "__main__":
    main()
