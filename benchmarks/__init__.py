"""What each op costs beside plain torch, its best peer and its floor: ``python -m benchmarks``.

One module per op, each with ``SIZES`` and ``QUICK`` (tuples of sizes), ``GPU_SIZES`` and ``GPU_QUICK`` (the same for a
GPU, with the dtype), ``work(size)``, the name of the row, and ``case(size, device)``, the contenders on data of that
size. ``targets`` holds what the project promises.
"""
