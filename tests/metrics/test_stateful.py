"""What torchmetrics, Lightning and torch.distributed do with a metric: copies, casts, collections, sums over ranks."""

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import MetricCollection

import pyfastcal as fc
from pyfastcal import metrics

from .data import N, fed, functional

ROOT = Path(__file__).parents[2]


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
