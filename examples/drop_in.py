"""Calibrated confidences in an open_clip pipeline: two lines, and every prediction stays.

The bundled small CLIP stands for yours: what ``open_clip.create_model_and_transforms`` and ``get_tokenizer``
give takes its place, and your images that of the task's."""

import torch

import pyfastcal as fc
from pyfastcal.clip import encode_images, load_clip, tasks
from pyfastcal.clip.prompts import CoOp


def main(epochs: int = 200) -> dict[str, float]:
    model, _, tokenizer = load_clip("pyfastcal/shapes")
    task = tasks.load("shapes", seed=0)  # 16 classes to tune on, 16 new ones
    names, (images, labels) = task.new_classes, task.new_test

    # Your tuned model. Any prompt learner will do; load_published reads the checkpoints of the published trainers.
    learner = CoOp(model, tokenizer, task.template, epochs=epochs).fit(*task.train, task.base_classes)

    # (1) DAC looks at text features only: those of your classes, tuned and not, and of the classes you tuned on.
    dac = fc.DistanceAwareCalibration().fit(
        tuned=learner.text_features(names),
        zeroshot=learner.zeroshot_text_features(names),
        base_tuned=learner.text_features(task.base_classes),
        base_zeroshot=learner.zeroshot_text_features(task.base_classes),
    )
    # (2) The same logits as before, each row times one factor.
    classifier = learner.classifier(names)  # images -> logits; your own module with logits does as well
    calibrated = fc.clip.wrap(classifier, dac)

    with torch.no_grad():
        before, after = classifier(images), calibrated(images)
    assert torch.equal(before.argmax(1), after.argmax(1))

    # Or from features to confidences at once, without the logits of all classes.
    features = encode_images(model, images)
    confidence, prediction = dac.predict_features(features, learner.text_features(names), learner.logit_scale)

    right = prediction == labels
    found = {"accuracy": right.float().mean().item(), "ece with DAC, from features": ece(confidence, right)}
    for name, logits in (("ece", before), ("ece with DAC", after)):
        found[name] = ece(logits.softmax(1).amax(1), right)
    return found


def ece(confidence: torch.Tensor, right: torch.Tensor) -> float:
    return float(fc.metrics.expected_calibration_error(confidence, right))


if __name__ == "__main__":
    torch.set_num_threads(1)  # a model this small gains nothing from more
    for name, value in main().items():
        print(f"{name}: {100 * value:.1f} %")
