"""Features once, calibration as often as you like: write feature files, read them anywhere, use NumPy.

``pyfastcal extract`` writes the same files from image folders, ``pyfastcal evaluate`` reads them; so does any
program that knows safetensors."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

import pyfastcal as fc
from pyfastcal.clip import encode_split, load_small, tasks
from pyfastcal.clip.prompts import KgCoOp
from pyfastcal.io import load_features, save_features


def write(folder: Path) -> None:
    """One file per split, with all that the calibrators need. The model is not needed again."""
    clip, task = load_small("digits"), tasks.load("digits", seed=0)
    learner = KgCoOp(clip, template=task.template).fit(*task.train, task.base_classes)
    for split, names, (images, labels) in (
        ("base", task.base_classes, task.validation),
        ("new", task.new_classes, task.new_test),
    ):
        dataset = TensorDataset(images, labels)  # or an ImageFolder, or any DataLoader
        features = encode_split(learner, dataset, names, meta={"learner": "KgCoOp", "split": split})
        save_features(folder / f"{split}.safetensors", features)


def read(folder: Path) -> dict[str, float]:
    """Arrays in, arrays out."""
    base, new = (load_features(folder / f"{split}.safetensors") for split in ("base", "new"))
    text = {
        name: getattr(split, kind).numpy()
        for kind in ("text_features", "zeroshot_text_features")
        for split, name in ((base, f"base {kind}"), (new, kind))
    }
    dac = fc.DistanceAwareCalibration().fit(
        tuned=text["text_features"],
        zeroshot=text["zeroshot_text_features"],
        base_tuned=text["base text_features"],
        base_zeroshot=text["base zeroshot_text_features"],
    )
    images, labels = new.image_features.numpy(), new.labels.numpy()
    plain = fc.similarity_confidence(images, text["text_features"], new.logit_scale)
    calibrated = dac.predict_features(images, text["text_features"], new.logit_scale)
    assert np.array_equal(plain[1], calibrated[1])  # no prediction changes
    right = plain[1] == labels
    found = {"accuracy": float(right.mean())}
    for name, (confidence, _) in (("ece", plain), ("ece with DAC", calibrated)):
        found[name] = float(fc.metrics.expected_calibration_error(confidence, right))
    return found


def main(folder: str | None = None) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(folder or temporary)
        write(where)
        return read(where)


if __name__ == "__main__":
    torch.set_num_threads(1)  # a model this small gains nothing from more
    for name, value in main().items():
        print(f"{name}: {100 * value:.1f} %")
