"""The figures of docs/metrics.md.

``python -m scripts.figures.metrics`` draws them and puts what they show under each."""

from scripts.figures.metrics import confidences, probabilities, streams
from scripts.figures.page import DOCS, by_name

PAGE = DOCS / "metrics.md"
FIGURES = by_name(
    *(confidences.reliability, confidences.edges, confidences.small_bins, confidences.gaps, confidences.largest_gap),
    *(confidences.ties, confidences.proximity, probabilities.classwise, probabilities.proper_scores),
    *(probabilities.coverage, probabilities.contrast, streams.cells, streams.streamed),
)
