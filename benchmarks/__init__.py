"""What each op costs beside plain torch, its best peer and its floor: ``python -m benchmarks``.

One module per op, each with ``SIZES`` and ``QUICK`` (tuples of sizes), ``work(size)``, the name of the row, and
``case(size)``, the contenders on data of that size. ``targets`` holds what the project promises.
"""
