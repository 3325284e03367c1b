"""Stream very many confidences and check every counter against exact integer arithmetic.

``python -m scripts.checks.soak`` runs 10^9 rows through the accumulator of all metrics and through the one kernel of
ECE. Blocks of rows are made once and come again in a random order, so that the expected sums are Python integers: so
many times the sums of each block, which ``fractions`` give. Resident memory is measured after the first tenth and at
the end.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from pyfastcal import reference
from pyfastcal.metrics.layout import Layout

BLOCKS = 16
BINS = 10


def block(seed: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Over-confident rows as a tuned CLIP's: a third within 0.001 of 1, some exactly 1."""
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.sigmoid(4 + 4 * torch.randn(n, generator=generator))
    correct = torch.rand(n, generator=generator) < confidence**1.5
    return confidence, correct, torch.exp(-0.6 - 0.4 * torch.rand(n, generator=generator))


def integers(confidence: Tensor, correct: Tensor) -> list[tuple[int, int, int]]:
    """Of each bin: rows, correct ones, and the confidences' sum times 2^32, by Python's integers."""
    sums = [[0, 0, 0] for _ in range(BINS)]
    bins = reference.bin_index(confidence, reference.uniform_edges(BINS)).tolist()
    for b, c, k in zip(bins, confidence.tolist(), correct.tolist(), strict=True):
        sums[b][0] += 1
        sums[b][1] += k
        sums[b][2] += round(Fraction(c) * 2**32)
    return [tuple(s) for s in sums]


def soak(rows: int, batch: int = 200_000, seed: int = 0) -> dict[str, object]:
    """Rows (rounded up to whole batches) through both layouts; what was found."""
    blocks = [block(seed + i, batch) for i in range(BLOCKS)]
    expected = [integers(confidence, correct) for confidence, correct, _ in blocks]
    layouts = {"all metrics": Layout(BINS, fine=True, n_proximity_bins=10), "ECE alone": Layout(BINS)}
    order = [random.Random(seed).randrange(BLOCKS) for _ in range(-(-rows // batch))]
    totals = [
        tuple(sum(order.count(i) * expected[i][b][j] for i in range(BLOCKS)) for j in range(3)) for b in range(BINS)
    ]
    result: dict[str, object] = {"rows": len(order) * batch, "exact": True}
    for name, layout in layouts.items():
        state, memory = torch.zeros(layout.size, dtype=torch.int64), 0.0
        start, work = time.perf_counter(), time.process_time()
        for i, which in enumerate(order):
            confidence, correct, proximity = blocks[which]
            layout.add(state, confidence, correct, proximity if layout.groups > 1 else None)
            if i == len(order) // 10:
                memory = resident()
        seconds, work = time.perf_counter() - start, time.process_time() - work
        counts = layout.read(state).bins
        found = [(n, k, (whole << 32) + low) for n, k, whole, low in zip(*(x.tolist() for x in counts), strict=True)]
        result["exact"] = result["exact"] and found == totals
        result[name] = {
            "seconds": round(seconds, 2),
            "seconds of processor time": round(work, 2),
            "ns of processor time per row": round(1e9 * work / (len(order) * batch), 2),
            "MB resident at a tenth": round(memory, 1),
            "MB resident at the end": round(resident(), 1),
        }
    return result


def resident() -> float:
    """MB of memory in use; 0 where /proc does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
    except OSError:
        return 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10**9)
    parser.add_argument("--batch", type=int, default=200_000)
    options = parser.parse_args(arguments)
    result = soak(options.rows, options.batch)
    print(json.dumps(result, indent=2))
    return 0 if result["exact"] else 1


if __name__ == "__main__":
    sys.exit(main())
