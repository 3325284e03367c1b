"""Both products beside ours: timed, compared and judged. Their times are not tested."""

import math
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import harness, products, results, similarity_confidence, tables

from .cases import case


def both(call) -> dict:
    return {products.contender(name): products.by(name, call) for name in ("mma", "wgmma")}


def test_products_are_timed_beside_ours(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(products.VARIABLE, raising=False)
    asked = set()

    def ours():
        asked.add(os.environ.get(products.VARIABLE))
        return torch.arange(4.0) * 2

    compared = replace(case(lambda x: x + x), ours=ours, variants=both(ours), floors={"GEMM rate": harness.Floor(list)})
    settings = replace(harness.QUICK_SETTINGS, peers=False)
    rows = {row.contender: row for row in harness.measure("op", "work", compared, settings)}
    assert {name: row.role for name, row in rows.items()} == {
        "pyfastcal": "ours",
        "pyfastcal, mma": "product",
        "pyfastcal, wgmma": "product",
        "GEMM rate": "floor",
    }
    assert asked == {None, "mma", "wgmma"} and products.VARIABLE not in os.environ
    assert all((set(row.shares) == {"GEMM rate"}) == (row.role != "floor") for row in rows.values())
    assert rows["pyfastcal"].shares["GEMM rate"] == pytest.approx(1 / rows["GEMM rate"].figure, rel=0.5)
    for name in ("pyfastcal, mma", "pyfastcal, wgmma"):
        assert rows[name].figure > 0 and 0 < rows[name].shares["GEMM rate"] < math.inf


def test_a_product_that_fails_or_differs_is_a_row_that_says_so():
    def fails():
        raise RuntimeError("misaligned address\nand more")

    variants = {"pyfastcal, mma": lambda: torch.arange(4.0) * 3, "pyfastcal, wgmma": fails}
    compared = replace(case(lambda x: x + x), variants=variants)
    rows = list(harness.measure("op", "work", compared, harness.QUICK_SETTINGS))
    notes = {row.contender: row.note for row in rows if row.seconds is None}
    assert set(notes) == set(variants) and notes["pyfastcal, wgmma"] == "failed: misaligned address"
    assert notes["pyfastcal, mma"].startswith("disagrees with pyfastcal: Tensor-likes are not close! Mismatched")
    assert next(row for row in rows if row.contender == "torch eager").figure > 0
    run = command.Run(results.stamp(quick=True, only=[]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command.OPS["bins"], "case", lambda size, device: compared)
        assert not command.measure(["bins"], True, harness.QUICK_SETTINGS, Console(stderr=True), run)
    assert tables.verdict(run.rows).endswith("; failed: misaligned address |")


def test_products_differ_by_the_rounding_of_fp32_at_most():
    """Whatever torch's own way may differ by."""
    coarse = replace(case(lambda x: x * 2), agree=lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=0.1))
    near = replace(coarse, variants={"pyfastcal, wgmma": lambda: torch.arange(4.0) * 2 + 0.05})
    for same, note in ((None, ""), (case(None).agree, "disagrees")):
        rows = list(harness.measure("op", "work", replace(near, same=same), harness.QUICK_SETTINGS))
        (row,) = (row for row in rows if row.role == "product")
        assert row.note.startswith(note) and (row.seconds is None) == bool(note)


def test_both_products_are_there_where_both_can_be_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(products.VARIABLE, raising=False)
    for hopper, depth, device, there in (
        (True, 449, "cuda", True),
        (True, 448, "cuda", False),
        (False, 512, "cuda", False),
        (False, 512, "cpu", True),
    ):
        monkeypatch.setattr(products, "on_hopper", lambda hopper=hopper: hopper)
        assert bool(products.variants(list, depth, device)) == there
    source = (results.ROOT / "csrc/cuda/product/warpgroups/block.cuh").read_text()
    assert "kLeastDepth = (kResident - 1) * kChunk + 1;" in source
    resident = int(re.search(r"kResident = (\d+)", source)[1])
    assert (resident - 1) * 64 + 1 == products.LEAST_DEPTH
    for forced in ("mma", "wgmma"):
        monkeypatch.setenv(products.VARIABLE, forced)
        assert list(products.variants(list, 512, "cpu")) == [f"pyfastcal, {forced}"]
        with products.product("auto"):
            assert os.environ[products.VARIABLE] == "auto"
        assert os.environ[products.VARIABLE] == forced


def test_only_what_has_two_products_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "rows.json"
    options = ["--quick", "--device", "cuda", "--contenders", "products", "--only", "similarity_confidence,bins"]
    if torch.cuda.is_available() and not products.on_hopper():
        pytest.skip("one product")
    assert command.main([*options, "--into", str(path)]) == 0
    rows = results.read(path)[1]
    deep = {similarity_confidence.work(size) for size in similarity_confidence.GPU_QUICK if size[1] > 448}
    assert {row.work for row in rows} == deep and {row.role for row in rows} == {"ours", "product", "floor"}
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| similarity_confidence | ") for line in lines) == len(deep)


def test_verdict():
    work = "knn 50,000 x 1,280,000 x 512 bf16, K=10"

    def row(contender: str, role: str, seconds: float | None, figure: float | None = None, **more) -> harness.Row:
        return harness.Row("knn", work, contender, role, seconds, figure=figure, **more)

    rows = [
        row("pyfastcal", "ours", 0.2, shares={"GEMM rate": 0.42}),
        row("pyfastcal, mma", "product", 0.2, 1.0, shares={"GEMM rate": 0.42}),
        row("pyfastcal, wgmma", "product", 0.1, 0.5, shares={"GEMM rate": 0.84}),
    ]
    line = f"| knn | {work} | 200 ms | 100 ms | 2.00x | 42% | 84% | 65% | yes |"
    assert tables.verdict(rows).splitlines()[2:] == [line]
    rows[2] = row("pyfastcal, wgmma", "product", 0.4, 2.0, shares={"GEMM rate": 0.21})
    assert tables.verdict(rows).endswith("| 200 ms | 400 ms | 0.50x | 42% | 21% | 65% | no |")
    rows[2] = row("pyfastcal, wgmma", "product", None, note="failed: no")
    assert tables.verdict(rows).endswith("| 200 ms |  |  | 42% |  | 65% | failed: no |")
    alone = [row("pyfastcal", "ours", None, note="not measured: out of time")]
    assert tables.verdict(alone).endswith("|  |  |  |  |  | 65% | not measured: out of time |")
