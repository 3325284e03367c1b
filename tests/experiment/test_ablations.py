"""What a weight is normalised by, against the calibrators themselves."""

import pytest
import torch
import torch.nn.functional as F

from pyfastcal import ContrastAwareCalibration, DistanceAwareCalibration, metrics
from pyfastcal.experiment import ablations
from pyfastcal.io.features import FeatureSet

SCALE = 30.0


def features(classes: int, seed: int) -> FeatureSet:
    generator = torch.Generator().manual_seed(seed)
    before = F.normalize(torch.randn(classes, 16, generator=generator), dim=1)
    after = F.normalize(before + 0.1 * torch.randn(classes, 16, generator=generator), dim=1)
    labels = torch.arange(classes).repeat(20)
    images = F.normalize(before[labels] + 0.4 * torch.randn(len(labels), 16, generator=generator), dim=1)
    return FeatureSet(images, after, labels, SCALE, before)


def test_normalisations() -> None:
    new, base = features(7, 0), features(9, 1)
    rows = ablations.rows(new, base, n_bins=10)
    found = {row["value"]: row["ece"] for row in rows if row["ablation"] == "normalisation"}
    assert found.keys() == ablations.NORMALISATIONS.keys()

    def error(calibrator, **zeroshot) -> float:
        of = {"image_features": new.image_features, "text_features": new.text_features, "logit_scale": SCALE}
        confidence, prediction = calibrator.predict_features(**of, **zeroshot)
        return float(metrics.expected_calibration_error(confidence, prediction == new.labels))

    zeroshot = {
        "zeroshot_image_features": new.image_features,
        "zeroshot_text_features": new.zeroshot_text_features,
    }
    dac = DistanceAwareCalibration().fit(
        tuned=new.text_features,
        zeroshot=new.zeroshot_text_features,
        base_tuned=base.text_features,
        base_zeroshot=base.zeroshot_text_features,
    )
    assert found["dac ratio"] == pytest.approx(error(dac), abs=1e-6)
    assert found["cac similarity"] == pytest.approx(error(ContrastAwareCalibration(), **zeroshot), abs=1e-6)
    smaller = ContrastAwareCalibration(k=15 * SCALE / 100)  # k z of logits over 100
    assert found["cac logit"] == pytest.approx(error(smaller, **zeroshot), abs=1e-6)
    assert len({round(value, 6) for value in found.values()}) == len(found)
