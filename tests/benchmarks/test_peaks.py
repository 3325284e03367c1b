"""The processor's peaks are measured, and rows say what share of them they reach."""

import shutil

import pytest
import torch

from benchmarks import harness, peaks, tables
from benchmarks.peaks import Cost

from .cases import case


def twice(x: torch.Tensor) -> torch.Tensor:
    return x + x


RATES = {"fp32": 100.0, "bf16": 400.0, "cache": 1000.0, "memory": 10.0}


@pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler")
def test_peaks_are_measured():
    rates = peaks.rates()
    assert {"fp32", "cache", "memory"} <= set(rates) <= {*peaks.NAMES}
    assert all(rate > 0 for rate in rates.values())
    assert rates["fp32"] > 1e8


def test_without_a_compiler_there_are_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert peaks.rates.__wrapped__() == {}
    assert "no-such-compiler was not found" in capsys.readouterr().err


def test_shares(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peaks, "rates", lambda: RATES)
    large = float(peaks.IN_CACHE * torch.get_num_threads() + 1)
    assert Cost(flops=50.0).shares(2.0) == {"fp32 peak": 0.25, "bf16 peak": 0.0625}
    assert Cost(n_bytes=large).shares(large) == pytest.approx({"memory": 0.1})
    assert Cost(n_bytes=500.0).shares(1.0) == {"cache": 0.5}
    assert Cost().shares(1.0) == {}


def test_rows_have_shares_on_the_cpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peaks, "rates", lambda: RATES)
    rows = list(harness.measure("op", "work", case(twice, cost=Cost(flops=1.0)), harness.QUICK_SETTINGS))
    timed = [row for row in rows if row.seconds]
    assert timed and all(row.peaks["fp32 peak"] == pytest.approx(0.01 / row.seconds) for row in timed)
    assert tables.peaks(harness.Row("op", "work", "pyfastcal", "ours", peaks={"fp32 peak": 0.5})) == "fp32 50%"
    without = list(harness.measure("op", "work", case(twice), harness.QUICK_SETTINGS))
    assert not any(row.peaks for row in without)
