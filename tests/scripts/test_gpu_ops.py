"""What ``make gpu`` calls on a GPU: every op by every product, and what a profiler looks at. Here on the CPU."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from benchmarks import products
from pyfastcal.ops import extension
from scripts import ROOT
from scripts.gpu import by_warpgroups, ops, profiled

from .process import python


def test_every_op_is_called():
    names = [name for cases in (ops.cases(), by_warpgroups.cases()) for name, _, _ in cases]
    assert len(set(names)) == len(names)
    for op in ("confidence", "bins", "nll", "log_density", "similarity", "similarity_confidence", "contrast", "knn"):
        assert any(name.startswith(op) for name in names)
    done = python("-m", "scripts.gpu.ops", "--device", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all as on the CPU" in done.stdout
    assert [line.rpartition(": ")[0] for line in done.stdout.splitlines() if line.endswith(": ok")] == names


def test_cases_by_warpgroups_ask_for_them(monkeypatch: pytest.MonkeyPatch):
    """At every call, and no longer."""
    monkeypatch.delenv("PYFASTCAL_CUDA_PRODUCT", raising=False)
    found = []

    def asked(name: str, real: Callable) -> Callable:
        return lambda *args, **options: found.append((name, extension.wanted_product())) or real(*args, **options)

    for name in ("similarity_confidence", "similarity", "contrast_distance"):
        monkeypatch.setattr(by_warpgroups.ops, name, asked(name, getattr(by_warpgroups.ops, name)))
    for name, call, _ in by_warpgroups.cases():
        before = len(found)
        if not name.startswith("knn"):
            call("cpu")
            assert found[before:] == [(name.partition(",")[0].partition(" ")[0], "wgmma")]
    assert extension.wanted_product() == "auto"


class Seen:
    """Stands in for torch's profiler, which has seen the kernels of the product that was asked for."""

    names: ClassVar[dict[str, str]] = {"mma": "void predict<T>()", "wgmma": "void predict_by_warpgroups<T>()"}
    product = ""

    def __init__(self, **options):
        pass

    def __enter__(self) -> "Seen":
        return self

    def __exit__(self, *error) -> bool:
        return False

    def events(self) -> list[SimpleNamespace]:
        kernels = [name for product, name in self.names.items() if product == self.product]
        return [SimpleNamespace(name=name, device_type=torch.autograd.DeviceType.CUDA) for name in kernels]


def test_looks_which_kernels_ran(monkeypatch: pytest.MonkeyPatch):
    assert "not looked at" in by_warpgroups.check_kernels("cpu")
    monkeypatch.setattr(torch.profiler, "profile", Seen)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(products, "on_hopper", lambda: True)

    def to(device: str, *tensors: torch.Tensor | None) -> tuple:
        Seen.product = extension.wanted_product()
        return tensors

    monkeypatch.setattr(by_warpgroups, "to", to)
    assert "asked for" in by_warpgroups.check_kernels("cuda")
    monkeypatch.setattr(Seen, "names", {"mma": "predict", "wgmma": "predict"})
    with pytest.raises(AssertionError, match="similarity_confidence.*, wgmma: predict"):
        by_warpgroups.check_kernels("cuda")
    monkeypatch.setattr(Seen, "names", {})
    assert "sees no kernels" in by_warpgroups.check_kernels("cuda")


def test_what_a_profiler_looks_at_runs():
    done = python("-m", "scripts.gpu.profiled", "--quick", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(", mma: done") == len(profiled.WORKS)
    assert done.stdout.count(", wgmma: done") == len(profiled.BY_WARPGROUPS)


def test_a_profiler_knows_the_kernels():
    """Those of today: where one is named otherwise, there would be nothing to see."""
    sources = "".join(path.read_text() for path in (ROOT / "csrc/cuda").rglob("*.cuh"))
    kernels = re.findall(r"__global__[^{]*?(\w+)\([^()]*\) \{", sources)
    found = {name for name in kernels if re.fullmatch(profiled.KERNELS, name)}
    assert {"predict", "scan", "count_bins", "predict_by_warpgroups", "scan_by_warpgroups"} <= found
