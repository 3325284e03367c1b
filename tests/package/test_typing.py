"""What type checkers and completion see."""

import re
from pathlib import Path

import pytest

import pyfastcal as fc
from scripts.checks.torch_versions import copy_sources

from .builds import Environment, attempt

pytest.importorskip("mypy")

SNIPPET = """
import torch

import pyfastcal as fc

image, text = torch.randn(8, 4), torch.randn(3, 4)
dac = fc.DistanceAwareCalibration(k=2).fit(text, text)
reveal_type(dac)  # pyfastcal.calibration.distance_aware.DistanceAwareCalibration
reveal_type(fc.similarity_confidence(image, text, 100.0))  # tuple[torch._tensor.Tensor, torch._tensor.Tensor]
reveal_type(fc.TemperatureScaling().fit(image, image))  # pyfastcal.calibration.temperature.TemperatureScaling
metrics = fc.CalibrationMetrics(n_bins=10)
reveal_type(metrics)  # pyfastcal.metrics.streaming.CalibrationMetrics
reveal_type(metrics.compute())  # dict[str, torch._tensor.Tensor]
reveal_type(fc.metrics.CalibrationError(n_bins=5))  # pyfastcal.metrics.streaming.CalibrationError
reveal_type(fc.metrics.expected_calibration_error(image[0], text[0]))  # torch._tensor.Tensor
reveal_type(fc.ops.nll(image, text))  # torch._tensor.Tensor
reveal_type(fc.reference.proximity(image, text, 2))  # torch._tensor.Tensor
reveal_type(fc.build_info())  # dict[str, Any]
reveal_type(fc.io.load_features("file"))  # pyfastcal.io.features.FeatureSet
reveal_type(fc.clip.load_small("digits"))  # pyfastcal.clip.small.SmallCLIP
reveal_type(fc.clip.wrap(torch.nn.Linear(2, 2), dac))  # pyfastcal.clip.wrap.Calibrated
reveal_type(fc.clip.encode_text(None, None, ["a"]))  # torch._tensor.Tensor
reveal_type(fc.clip.prompts.CoOp(None))  # pyfastcal.clip.prompts.coop.CoOp
fc.no_such_thing  # error
fc.metrics.no_such_thing  # error
fc.clip.no_such_thing  # error
fc.knn(image, text, "two")  # error
"""


@pytest.mark.parametrize("strict", [False, True], ids=["editable", "strict editable"])
def test_mypy_knows_an_editable_installation(tmp_path: Path, strict: bool) -> None:
    environment = Environment(tmp_path / "env")
    options = ["-C", "editable_mode=strict"] if strict else []
    environment.install(*options, "-e", copy_sources(tmp_path / "source"), PYFASTCAL_BUILD="skip")
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    # one cache for both, beside them
    cache = tmp_path.parent / "mypy_cache"
    command = ["-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", cache, snippet]
    said = attempt(environment.python, *command, cwd=tmp_path).stdout
    found: dict[int, str] = {}
    for line, text in re.findall(r"^[^:\n]*:(\d+): (.*)$", said, re.M):
        revealed = re.search(r'Revealed type is "(.*)"', text)
        found[int(line)] = revealed[1] if revealed else "error" if "error" in text else found.get(int(line), text)
    wanted = {n: line.split("  # ")[1] for n, line in enumerate(SNIPPET.splitlines(), 1) if "  # " in line}
    assert found == wanted, said


def test_what_is_shown_is_public_and_there() -> None:
    names = dir(fc)
    assert set(names) == {*fc.__all__, *fc._LAZY, *fc.metrics.STREAMING, "__version__"}
    assert all(not name.startswith("_") or name == "__version__" for name in names)
    assert {"CalibrationMetrics", "DistanceAwareCalibration", "clip", "io", "metrics", "ops"} <= set(names)
    for module in (fc, fc.metrics):
        for name in dir(module):
            assert getattr(module, name) is not None, name
        with pytest.raises(AttributeError, match="no attribute 'no_such_thing'"):
            module.no_such_thing  # noqa: B018
