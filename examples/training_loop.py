"""Calibration watched while a prompt is tuned: streaming metrics in the loop, for tuned classes and new ones.

The loop is yours: any model that gives features and logits does. Here it is CoOp's, on a bundled small CLIP."""

import torch

import pyfastcal as fc
from pyfastcal.clip import load_small, tasks
from pyfastcal.clip.prompts import CoOp


def main(epochs: int = 10) -> list[dict[str, float]]:
    clip, task = load_small("shapes"), tasks.load("shapes", seed=0)  # 16 classes to tune on, 16 new ones
    torch.manual_seed(0)
    learner = CoOp(clip, template=task.template)
    prompts, labels = learner.bind(task.base_classes), task.train[1]
    features = learner.features(task.train[0])  # CoOp leaves the image tower alone: once is enough
    optimizer = torch.optim.SGD(learner.trained(), lr=0.02, momentum=0.9)

    splits = {"base": (task.base_classes, *task.base_test), "new": (task.new_classes, *task.new_test)}
    splits = {name: (classes, learner.features(images), y) for name, (classes, images, y) in splits.items()}
    # Sums of fixed size, however many batches come; under DDP compute() joins the ranks, as any torchmetrics metric.
    metrics = {name: fc.CalibrationMetrics(n_proximity_bins=None) for name in ("base", "new", "new with DAC")}

    history = []
    for epoch in range(epochs):
        for rows in torch.randperm(len(labels)).split(32):
            optimizer.zero_grad()
            learner.loss(features[rows], labels[rows], prompts).backward()
            optimizer.step()

        text = {name: learner.text_features(classes) for name, (classes, _, _) in splits.items()}
        zeroshot = {name: learner.zeroshot_text_features(classes) for name, (classes, _, _) in splits.items()}
        dac = fc.DistanceAwareCalibration().fit(  # anew: the prompt has moved
            tuned=text["new"], zeroshot=zeroshot["new"], base_tuned=text["base"], base_zeroshot=zeroshot["base"]
        )
        row: dict[str, float] = {"epoch": epoch + 1}
        for name, metric in metrics.items():
            split = name.split()[0]
            weight = dac.class_weight if name.endswith("DAC") else None
            metric.reset()
            for image, y in zip(splits[split][1].split(256), splits[split][2].split(256), strict=True):
                found = fc.similarity_confidence(image, text[split], learner.logit_scale, class_weight=weight)
                metric.update(*found, y)  # confidence, prediction, labels
            values = metric.compute()
            row |= {f"{name} {key}": float(values[key]) for key in ("accuracy", "ece")}
        history.append(row)
    return history


if __name__ == "__main__":
    torch.set_num_threads(1)  # a model this small gains nothing from more
    for row in main():
        print(f"epoch {row.pop('epoch')}: " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in row.items()))
