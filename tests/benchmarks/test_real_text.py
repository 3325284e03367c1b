"""Benchmarks on text features from a file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import real_text


@pytest.fixture
def heads(tmp_path: Path) -> str:
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(60, 32, generator=generator)
    after = before + 0.1 * torch.randn(60, 32, generator=generator)
    save_file({"before": before.half(), "after": after.half()}, tmp_path / "heads.safetensors")
    return f"{tmp_path}/heads.safetensors"


def test_measures_what_a_file_holds(
    heads: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["--features", f"one={heads}:before", "--features", f"both={heads}:before+after"]
    assert real_text.main(["--quick", *arguments]) == 0
    found = capsys.readouterr().out
    assert "knn, one, all: 60 x 60, K=5" in found and "knn, both, new among base: 30 x 30, K=5" in found
    assert "DAC fit, both: 30 base, 30 classes" in found and "DAC fit, one" not in found


@pytest.mark.parametrize("text", ["FILE:before", "name=FILE", "name=FILE:other", "=FILE:before"])
def test_other_words_are_refused(heads: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        real_text.main(["--features", text.replace("FILE", heads)])
    assert "--features" in capsys.readouterr().err
