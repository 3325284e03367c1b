"""Serving calls, of few rows as of many: each op and calibrator against its torch idiom, in every cell of a sweep.

A floor is given where it says something: one pass over the logits or over the class features, and ten small torch
operations for the update of a metric.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.testing import assert_close

import pyfastcal as fc
from pyfastcal import reference

from . import data, similarity_confidence
from .bins import N_BINS, bincount_idiom, expected_error
from .confidence import confidence_idiom
from .harness import Case, Floor, Row

ROWS = (1, 8, 64, 512, 4096)
CLASSES = (2, 100, 1000, 21_841)
DIM = 512
LOGITS, WEIGHTED, SCALED, DIVIDED = "confidence", "DAC confidence", "DAC.forward", "TemperatureScaling.forward"
CONTRASTED = "CAC.forward"
FEATURES, UNIT, PREDICTED = "features -> confidence", "unit features -> confidence", "DAC.predict_features"
CONTRAST_PREDICTED = "CAC.predict_features"
UPDATE = "CalibrationMetrics.update"
# what stands behind a figure below 1, or near it
NOTES = {
    DIVIDED: "Parity is the floor: the idiom is a Module and one operation of one pass, which looks at no value.",
    UPDATE: "Ours adds a row to two of thousands of cells, for all metrics; the idiom to the 10 bins of ECE alone.",
}
KINDS = (LOGITS, WEIGHTED, DIVIDED, SCALED, CONTRASTED, FEATURES, UNIT, PREDICTED, CONTRAST_PREDICTED)

SIZES = (*((kind, n, c) for kind in KINDS for n in ROWS for c in CLASSES), *((UPDATE, n, 10) for n in ROWS))
QUICK = (*((kind, n, c) for kind in KINDS for n, c in ((1, 2), (8, 100))), (UPDATE, 8, 10))
GPU_SIZES: tuple[tuple, ...] = ()
GPU_QUICK: tuple[tuple, ...] = ()


def work(size: tuple) -> str:
    kind, n, c = size
    return f"{kind}, {n:,} x {c:,}"


def case(size: tuple, device: str = "cpu") -> Case:
    kind, n, c = size
    if kind == UPDATE:
        return update(n)
    calibrator = fc.DistanceAwareCalibration()
    calibrator.class_weight = weight = data.class_weights(c)
    if kind in (FEATURES, UNIT, PREDICTED, CONTRAST_PREDICTED):
        image, text, _ = data.clip_features(n, c, DIM)
        floors = {"read classes": Floor(text.sum)}
        if kind == UNIT:

            def ours() -> tuple[Tensor, Tensor]:
                return fc.similarity_confidence(image, text, data.LOGIT_SCALE, normalize=False)

            return Case(ours, unit_idiom, (image, text), similarity_confidence.agree, floors=floors, compile=False)
        if kind == CONTRAST_PREDICTED:
            near = text + 0.2 * text.norm(dim=1).mean() / DIM**0.5 * torch.randn(c, DIM, generator=data.generator(4))
            features, contrasting = (image, text, image, near), fc.ContrastAwareCalibration()

            def ours() -> tuple[Tensor, Tensor]:
                return contrasting.predict_features(*features)

            return Case(ours, contrast_idiom, features, similarity_confidence.agree, floors=floors, compile=False)
        if kind == FEATURES:
            weight = None

            def ours() -> tuple[Tensor, Tensor]:
                return fc.similarity_confidence(image, text, data.LOGIT_SCALE)
        else:

            def ours() -> tuple[Tensor, Tensor]:
                return calibrator.predict_features(image, text, data.LOGIT_SCALE)

        idiom, inputs = similarity_confidence.idiom, (image, text, weight)
        return Case(ours, idiom, inputs, similarity_confidence.agree, floors=floors, compile=False)
    logits, _ = data.clip_logits(n, c)
    # as far apart as a tuned model's logits are: weights of about 0.8
    zeroshot = logits + 0.1 * data.clip_logits(n, c, seed=5)[0] if kind == CONTRASTED else logits
    contrasting = fc.ContrastAwareCalibration()
    call, idiom, inputs = {
        LOGITS: (lambda: fc.confidence(logits), softmax_idiom, (logits,)),
        WEIGHTED: (lambda: fc.confidence(logits, class_weight=weight), confidence_idiom, (logits, weight)),
        SCALED: (lambda: calibrator(logits), Scaled(weight), (logits,)),
        DIVIDED: (temperature(logits), Divided(1.3), (logits,)),
        CONTRASTED: (lambda: contrasting(logits, zeroshot), contrasted, (logits, zeroshot)),
    }[kind]
    return Case(call, idiom, inputs, agree, floors={"logits.sum()": Floor(logits.sum)}, compile=False)


class Scaled(nn.Module):
    """DAC in plain torch: a class whose logit rounding makes equal to the maximum may become the prediction."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.weight[logits.argmax(dim=1)][:, None]


class Divided(nn.Module):
    """A temperature in plain torch: nothing is looked at, nor kept where rounding makes logits equal."""

    def __init__(self, temperature: float):
        super().__init__()
        self.register_buffer("temperature", torch.tensor(temperature))

    def forward(self, logits: Tensor) -> Tensor:
        return logits / self.temperature


def contrasted(logits: Tensor, zeroshot_logits: Tensor) -> Tensor:
    """CAC in plain torch: nothing is looked at, nor kept where rounding makes logits equal."""
    return logits * reference.weight_of_distance(reference.distance_of_logits(logits, zeroshot_logits))[:, None]


def temperature(logits: Tensor):
    calibrator = fc.TemperatureScaling(1.3)
    return lambda: calibrator(logits)


def softmax_idiom(logits: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(logits.softmax(dim=1).max(dim=1))


def unit_idiom(image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    return softmax_idiom(data.LOGIT_SCALE * image @ text.T)


def contrast_idiom(*features: Tensor) -> tuple[Tensor, Tensor]:
    image, text, zeroshot_image, zeroshot_text = (normalize(x, dim=1) for x in features)
    logits, zeroshot_logits = data.LOGIT_SCALE * image @ text.T, data.LOGIT_SCALE * zeroshot_image @ zeroshot_text.T
    return softmax_idiom(contrasted(logits, zeroshot_logits))


def agree(ours: Tensor | tuple, theirs: Tensor | tuple) -> None:
    assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def update(n: int) -> Case:
    """All metrics with proximity, against the bins of ECE alone in plain torch."""
    g = data.generator(3)
    confidence, proximity = torch.rand(n, generator=g), torch.rand(n, generator=g)
    prediction, labels = (torch.randint(10, (n,), generator=g) for _ in range(2))
    metrics = fc.CalibrationMetrics(N_BINS)

    def idiom(confidence: Tensor, prediction: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return bincount_idiom(confidence, prediction == labels)

    def same_error(ours: None, theirs: tuple[Tensor, ...] | None) -> None:
        if theirs is not None:  # ours, which gives nothing back: the state has the batch, once or many times
            assert_close(metrics.compute()["ece"], expected_error(theirs), rtol=0, atol=1e-6)

    def ten() -> None:
        for _ in range(10):
            torch.add(confidence, proximity)

    return Case(
        lambda: metrics.update(confidence, prediction, labels, proximity),
        idiom,
        (confidence, prediction, labels),
        same_error,
        floors={"10 additions": Floor(ten)},
        compile=False,
    )


def others(rows: list[Row]) -> list[Row]:
    """Those that stand in the tables of all ops: sweeps have tables of their own."""
    return [row for row in rows if row.op not in ("small", "knn_sweep")]


def grids(rows: list[Row]) -> str:
    """Of each kind the time of the idiom over ours, in every cell: Markdown."""
    figures = {row.work: row.figure for row in rows if row.contender == "torch eager"}
    blocks = []
    for kind in (*KINDS, UPDATE):
        columns = CLASSES if kind in KINDS else (10,)
        lines = [f"| {kind} | {' | '.join(f'{c:,}' for c in columns)} |", "| --- " * (len(columns) + 1) + "|"]
        for n in ROWS:
            found = [figures.get(work((kind, n, c))) for c in columns]
            if any(found):
                lines.append(f"| {n:,} | {' | '.join('' if x is None else f'{x:.2f}x' for x in found)} |")
        if len(lines) > 2:
            blocks.append("\n".join(lines) + (f"\n\n{NOTES[kind]}" if kind in NOTES else ""))
    return "\n\n".join(blocks)
