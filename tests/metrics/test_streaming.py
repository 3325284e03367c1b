"""The torchmetrics classes: the functional forms' values, and what torchmetrics and Lightning do with a metric."""

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import MetricCollection

import pyfastcal as fc
from pyfastcal import metrics

ROOT = Path(__file__).parents[2]
N = 2500


@pytest.fixture(scope="module")
def stream():
    """(confidence, prediction, labels, proximity), some confidences exactly 1 or on an edge."""
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(N, generator=generator) ** 0.3
    confidence[::9] = 1.0
    confidence[1::9] = (10 * confidence[1::9]).round() / 10
    labels = torch.randint(0, 7, (N,), generator=generator)
    right = torch.rand(N, generator=generator) < confidence**2
    return confidence, torch.where(right, labels, (labels + 1) % 7), labels, torch.rand(N, generator=generator)


@pytest.fixture(scope="module")
def classes():
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(N, 7, generator=generator)
    return logits.softmax(1), torch.randint(0, 7, (N,), generator=generator)


def functional(name, stream):
    confidence, prediction, labels, proximity = stream
    top = confidence, prediction == labels
    return {
        "ece": lambda: metrics.expected_calibration_error(*top),
        "l2": lambda: metrics.expected_calibration_error(*top, 15, norm="l2", closed="right"),
        "max": lambda: metrics.expected_calibration_error(*top, norm="max"),
        "mce": lambda: metrics.maximum_calibration_error(*top),
        "mce_weighted": lambda: metrics.maximum_calibration_error(*top, weighted=True),
        "debiased": lambda: metrics.debiased_ece(*top),
        "gaps": lambda: metrics.signed_gaps(*top),
        "ace": lambda: metrics.adaptive_calibration_error(*top),
        "piece": lambda: metrics.proximity_informed_ece(*top, proximity),
    }[name]()


MAKE = {
    "ece": fc.CalibrationError,
    "l2": lambda **o: fc.CalibrationError(15, norm="l2", closed="right", **o),
    "max": lambda **o: fc.CalibrationError(norm="max", **o),
    "mce": fc.MaximumCalibrationError,
    "mce_weighted": lambda **o: fc.MaximumCalibrationError(weighted=True, **o),
    "debiased": fc.DebiasedCalibrationError,
    "gaps": fc.SignedGaps,
    "ace": fc.AdaptiveCalibrationError,
    "piece": fc.ProximityInformedECE,
}
BOUNDED = ("ace", "piece")


def fed(metric, stream, step=256):
    width = 4 if isinstance(metric, (fc.ProximityInformedECE, fc.CalibrationMetrics)) else 3
    for batch in zip(*(x.split(step) for x in stream), strict=True):
        metric.update(*batch[:width])
    return metric


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("validate", [True, False])
def test_single_metrics_are_the_functional_ones(name, stream, validate):
    metric = fed(MAKE[name](validate=validate), stream)
    value, expected = metric.compute(), functional(name, stream)
    assert value.dtype == torch.float64
    if name in BOUNDED:
        low, high = metric.error_interval()
        assert low <= float(expected) <= high and low <= float(value) <= high
        assert abs(float(value) - float(expected)) <= metric.error_bound() <= high - low
        assert float(value) == pytest.approx(float(expected), abs=2e-3)
    else:
        torch.testing.assert_close(value, expected, rtol=0, atol=0, equal_nan=True)


def test_everything_in_one_pass(stream):
    metric = fed(fc.CalibrationMetrics(), stream)
    values = metric.compute()
    assert list(values) == ["accuracy", "confidence", "ece", "ace", "mce", "mce_weighted", "piece"]
    for name in ("ece", "mce", "mce_weighted"):
        assert torch.equal(values[name], functional(name, stream))
    for name, (low, high) in metric.error_intervals().items():
        assert low <= float(functional(name, stream)) <= high
    assert "piece" not in fed(fc.CalibrationMetrics(n_proximity_bins=None), stream[:3]).compute()
    assert fed(fc.CalibrationMetrics(), stream[:3]).compute()["piece"].isnan()


def test_classwise(classes):
    metric = fc.ClasswiseCalibrationError(7)
    for batch in zip(*(x.split(300) for x in classes), strict=True):
        metric.update(*batch)
    assert torch.equal(metric.compute(), metrics.classwise_ece(*classes))
    each = fc.ClasswiseCalibrationError(7, average=False)
    each.update(*classes)
    probs, labels = classes
    expected = [metrics.expected_calibration_error(probs[:, c], labels == c) for c in range(7)]
    torch.testing.assert_close(each.compute(), torch.stack(expected), rtol=1e-12, atol=0)


def test_the_same_bits_for_any_split(stream):
    whole, parts = fc.CalibrationMetrics(), fc.CalibrationMetrics()
    whole.update(*stream)
    assert torch.equal(fed(parts, stream, 7).state, whole.state)
    assert whole.state.dtype == torch.int64 and 8 * whole.state.numel() < 1_000_000


def test_correctness_in_place_of_classes_and_numpy(stream):
    confidence, prediction, labels, proximity = stream
    expected = fed(fc.ProximityInformedECE(), stream).compute()
    metric = fc.ProximityInformedECE()
    metric.update(confidence.numpy(), (prediction == labels).numpy(), proximity=proximity.numpy())
    assert torch.equal(metric.compute(), expected)
    zeros_and_ones = fc.CalibrationError()
    zeros_and_ones.update(confidence, (prediction == labels).long())
    assert torch.equal(zeros_and_ones.compute(), functional("ece", stream))


def test_forward_gives_the_batch_and_keeps_the_whole(stream):
    metric = fc.CalibrationMetrics()
    for batch in zip(*(x.split(1000) for x in stream), strict=True):
        value = metric(*batch)["ece"]
        assert torch.equal(value, metrics.expected_calibration_error(batch[0], batch[1] == batch[2]))
    assert torch.equal(metric.state, fed(fc.CalibrationMetrics(), stream).state)


def test_merge_pickle_copy_reset_and_state_dict(stream):
    first, second = (tuple(x[half] for x in stream) for half in (slice(0, 900), slice(900, None)))
    metric, other = fed(fc.CalibrationMetrics(), first), fed(fc.CalibrationMetrics(), second)
    for same in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric), metric.clone()):
        same.merge_state(other)
        assert torch.equal(same.state, fed(fc.CalibrationMetrics(), stream).state)
        assert torch.equal(same.compute()["ece"], functional("ece", stream))
    with pytest.raises(ValueError, match="state variable"):
        fc.CalibrationError(10).merge_state(fc.CalibrationError(11))
    assert not metric.state_dict()
    metric.persistent(True)
    again = fc.CalibrationMetrics()
    again.load_state_dict(metric.state_dict())
    assert torch.equal(again.state, metric.state)
    metric.reset()
    assert not metric.state.any()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute()["ece"].isnan()


def test_moves_and_casts_leave_the_counts_integers(stream):
    metric = fed(fc.CalibrationMetrics(), stream)
    before = metric.state.clone()
    for moved in (metric.half(), metric.double(), metric.to(torch.float16), metric.to("cpu")):
        assert torch.equal(moved.state, before) and moved.state.dtype == torch.int64
    away = fc.CalibrationMetrics().to("meta")
    assert away.state.device.type == "meta"
    away.update(*(x.to("meta") for x in stream))  # and nothing is read back: it could not be
    fc.ClasswiseCalibrationError(7).to("meta").update(torch.zeros(3, 7, device="meta"), stream[2][:3].to("meta"))
    fc.CalibrationError().to("meta").update(*(x.to("meta") for x in stream[:3]))


class Operations(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.skipif(not fc.build_info()["kernels"], reason="what the kernels save")
@pytest.mark.parametrize(("make", "most"), [(fc.CalibrationMetrics, 95), (fc.CalibrationError, 45)])
def test_a_small_update_is_few_operations(stream, make, most):
    """Its time is theirs, about a microsecond each."""
    metric = make()
    batch = [x[:256] for x in stream[: 4 if make is fc.CalibrationMetrics else 3]]
    metric.update(*batch)
    with Operations() as operations:
        metric.update(*batch)
    assert operations.count <= most


def test_inference_mode_does_not_stick(stream):
    metric = fc.CalibrationMetrics()
    with torch.inference_mode():
        metric.reset()
        metric.update(*stream)
    metric.update(*stream)
    assert int(metric.state[0]) == 2 * N


def test_collections_share_the_state_of_those_that_count_alike(stream):
    collection = MetricCollection(
        {
            "ece": fc.CalibrationError(),
            "right": fc.CalibrationError(closed="right"),
            "fifteen": fc.CalibrationError(15),
            "l2": fc.CalibrationError(norm="l2"),
            "mce": fc.MaximumCalibrationError(),
            "ace": fc.AdaptiveCalibrationError(),
            "piece": fc.ProximityInformedECE(),
            "everything": fc.CalibrationMetrics(),
        }
    )
    names = ("confidence", "prediction", "labels", "proximity")
    quiet = stream[0].clone()
    quiet[:256] = 0.55  # the first batch looks the same to bins closed left or right: they must not be joined
    for batch in zip(*(x.split(256) for x in (quiet, *stream[1:])), strict=True):
        collection.update(**dict(zip(names, batch, strict=True)))
    groups = {frozenset(group) for group in collection.compute_groups.values()}
    assert frozenset({"ece", "l2", "mce"}) in groups and len(groups) == 6
    top = quiet, stream[1] == stream[2]
    values = collection.compute()
    assert torch.equal(values["ece"], metrics.expected_calibration_error(*top))
    assert torch.equal(values["right"], metrics.expected_calibration_error(*top, closed="right"))
    assert torch.equal(values["mce"], metrics.maximum_calibration_error(*top))
    assert torch.equal(values["fifteen"], metrics.expected_calibration_error(*top, 15))
    assert torch.equal(values["everything_piece" if "everything_piece" in values else "piece"], values["piece"])
    collection.reset()
    collection(**dict(zip(names, stream, strict=True)))
    assert torch.equal(collection.compute()["ece"], functional("ece", stream))


def test_lightning_logs_them(stream, tmp_path):
    lightning = pytest.importorskip("pytorch_lightning")
    from torch.utils.data import DataLoader, TensorDataset

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.ece, self.everything = fc.CalibrationError(), fc.CalibrationMetrics()

        def validation_step(self, batch, index):
            self.ece.update(*batch[:3])
            self.everything.update(*batch)
            self.log("ece", self.ece)

        def on_validation_epoch_end(self):
            self.log_dict({f"all/{name}": value for name, value in self.everything.compute().items()})
            self.everything.reset()

    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    model = Model()
    for _ in range(2):  # reset after each epoch
        (found,) = trainer.validate(model, DataLoader(TensorDataset(*stream), 256), verbose=False)
        for name in ("ece", "all/ece"):
            assert found[name] == pytest.approx(float(functional("ece", stream)), abs=1e-7)
        assert found["all/piece"] == pytest.approx(float(functional("piece", stream)), abs=2e-3)


def test_plot(stream):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metric = fed(fc.CalibrationMetrics(), stream)
    axes = metric.plot(n_bootstrap=50)[1]
    curve = metrics.reliability_curve(stream[0], stream[1] == stream[2], n_bootstrap=50)
    heights = [p.get_height() for p in axes.patches]
    held = curve.count > 0
    np.testing.assert_allclose(heights[::2], curve.accuracy[held])
    np.testing.assert_allclose(heights[1::2], (curve.confidence - curve.accuracy)[held])
    bands = [line.get_ydata() for line in axes.lines if len(set(line.get_xdata())) == 1]
    np.testing.assert_allclose(bands, torch.stack([curve.lower, curve.upper], 1)[held])
    own = plt.figure().subplots()
    assert fed(fc.CalibrationError(), stream).plot(ax=own)[1] is own
    assert fc.CalibrationError().plot(metric.compute()["ece"])[1] is not None
    classwise = fc.ClasswiseCalibrationError(2)
    classwise.update(torch.tensor([[0.2, 0.8]]), torch.tensor([1]))
    assert classwise.plot()[1] is not None
    plt.close("all")


def test_reliability_is_the_functional_curve(stream):
    got = fed(fc.CalibrationError(), stream).reliability(n_bootstrap=20)
    expected = metrics.reliability_curve(stream[0], stream[1] == stream[2], n_bootstrap=20)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert fc.CalibrationError().reliability().lower.isnan().all()


C, Y = torch.tensor([0.2, 0.9]), torch.tensor([0, 1])
GOOD = dict(confidence=C, prediction=Y, labels=Y, proximity=C)
BAD = [
    ("confidence", C + 0.5),
    ("confidence", C * torch.nan),
    ("confidence", C[None]),
    ("confidence", Y),
    ("confidence", "high"),
    ("prediction", Y[:1]),
    ("prediction", Y.float()),
    ("prediction", Y.bool()),
    ("prediction", Y.to("meta")),
    ("labels", Y[:1]),
    ("labels", Y - 1),
    ("labels", Y.float()),
    ("labels", Y[None]),
    ("proximity", C[:1]),
    ("proximity", C + 1),
    ("proximity", Y),
]


@pytest.mark.parametrize("make", [fc.CalibrationMetrics, fc.CalibrationError, fc.ProximityInformedECE])
@pytest.mark.parametrize(("name", "wrong"), BAD)
def test_bad_input_names_the_argument_and_changes_nothing(make, name, wrong):
    good = GOOD if make is not fc.CalibrationError else {k: v for k, v in GOOD.items() if k != "proximity"}
    if name not in good:
        return
    metric = make()
    metric.update(**good)
    before = metric.state.clone()
    with pytest.raises(ValueError, match=f"^{name} ") as caught:
        metric.update(**{**good, name: wrong})
    assert "\n" not in str(caught.value) and torch.equal(metric.state, before)


def test_other_bad_arguments(classes):
    for make, name, wrong in (
        (fc.CalibrationError, "norm", dict(norm="l3")),
        (fc.CalibrationError, "closed", dict(closed="both")),
        (fc.CalibrationError, "n_bins", dict(n_bins=0)),
        (fc.CalibrationError, "validate", dict(validate="yes")),
        (fc.ProximityInformedECE, "n_proximity_bins", dict(n_proximity_bins=None)),
        (fc.ClasswiseCalibrationError, "n_classes", dict(n_classes=0)),
    ):
        with pytest.raises(ValueError, match=f"^{name} "):
            make(**wrong)
    probs, labels = classes
    metric = fc.ClasswiseCalibrationError(7)
    for name, arguments in (
        ("probs", (probs[:, :6], labels)),
        ("probs", (probs * 2, labels)),
        ("probs", (probs * torch.nan, labels)),
        ("labels", (probs, labels + 1)),
        ("labels", (probs, labels[:5])),
    ):
        with pytest.raises(ValueError, match=f"^{name} "):
            metric.update(*arguments)
        assert not metric.state.any()
    with pytest.raises(ValueError, match="^prediction must be booleans"):
        fc.CalibrationError().update(C, torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="^confidence must be on meta"):
        fc.CalibrationError().to("meta").update(C, Y, Y)


def test_unchecked_nonsense_raises_in_the_end():
    metric = fc.CalibrationError(validate=False)
    metric.update(torch.tensor([0.5, torch.nan]), Y, Y)
    with pytest.raises(ValueError, match=r"^confidence must lie in \[0, 1\], got 1 row that did not"):
        metric.compute()
    classwise = fc.ClasswiseCalibrationError(2, validate=False)
    classwise.update(torch.tensor([[0.5, 1.5]]), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"^probs must lie in \[0, 1\], got 1 that did not"):
        classwise.compute()


RANKS = """
    import sys, torch, torch.distributed as dist
    rank = int(sys.argv[1])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
    import pyfastcal as fc
    from pyfastcal import metrics

    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(999, generator=generator) ** 0.3
    labels = torch.randint(0, 5, (999,), generator=generator)
    right = torch.rand(999, generator=generator) < confidence
    stream = confidence, torch.where(right, labels, labels + 1), labels, torch.rand(999, generator=generator)
    mine = [x[:300] if rank == 0 else x[300:] for x in stream]

    reduced = []
    all_reduce = dist.all_reduce
    dist.all_reduce = lambda *a, **k: (reduced.append(a[0].numel()), all_reduce(*a, **k))[1]

    whole, metric = fc.CalibrationMetrics(sync_on_compute=False), fc.CalibrationMetrics()
    whole.update(*stream)
    metric.update(*mine)
    joined, expected = metric.compute(), whole.compute()
    assert reduced == [metric.state.numel()], reduced  # one collective
    assert all(torch.equal(joined[name], expected[name]) for name in expected)
    assert metric.error_intervals() == metrics.Accumulator().update(confidence, right, stream[3]).error_intervals()
    assert torch.equal(metric.reliability().count, whole.reliability().count)
    assert int(metric.state[0]) == len(mine[0])  # back to this rank's own
    metric.sync()
    assert torch.equal(metric.state, whole.state)
    metric.unsync()
    metric.update(*mine)
    assert int(metric.compute()["accuracy"] * 0 + metric.state[0]) == 2 * len(mine[0])

    idle = fc.CalibrationError()  # a rank without rows
    if rank == 1:
        idle.update(*stream[:3])
    else:
        idle._update_count = 1
    assert torch.equal(idle.compute(), metrics.expected_calibration_error(confidence, right))

    given = fc.AdaptiveCalibrationError(dist_sync_fn=lambda x, group=None: [x, x])  # the caller's own way to gather
    given.update(*stream[:3])
    assert torch.equal(given.compute(), whole.compute()["ace"])

    accumulator = metrics.Accumulator().update(mine[0], mine[1] == mine[2])
    dist.all_reduce(accumulator.state)
    assert torch.equal(accumulator.carry().state, metrics.Accumulator().update(confidence, right).state)
    assert accumulator.to_bytes() == metrics.Accumulator().update(confidence, right).to_bytes()

    mine = [x[:300] if rank == 0 else x[300:] for x in (confidence, right)]
    batches = list(zip(*(x.split(50 + 20 * rank) for x in mine)))
    exact = metrics.adaptive_calibration_error_of_stream(batches, group=dist.group.WORLD)
    assert torch.equal(exact, metrics.adaptive_calibration_error(confidence, right))
    dist.destroy_process_group()
    print("agreed")
"""


def test_two_ranks_join_by_one_collective(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(textwrap.dedent(RANKS))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script)]
    children = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in (0, 1)
    ]
    for child in children:
        output = child.communicate(timeout=120)[0]
        assert child.returncode == 0 and "agreed" in output, output[-3000:]


def test_without_torchmetrics_the_error_says_what_to_install():
    code = """
        import sys
        sys.modules["torchmetrics"] = None
        import pyfastcal as fc
        try:
            fc.CalibrationMetrics
        except ImportError as error:
            assert "pip install " in str(error) and "[metrics]'" in str(error), error
        else:
            raise AssertionError
        fc.metrics.Accumulator()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=ROOT)
