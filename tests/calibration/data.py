"""Over-confident predictions, and scikit-learn's face for them."""

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from torch import Tensor


def logits_and_labels(
    seed: int = 0, n: int = 600, c: int = 5, *, temperature: float = 2.0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Labels drawn from ``softmax(logits / temperature)``."""
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * temperature * torch.randn(n, c, generator=generator)).to(dtype)
    labels = torch.multinomial((logits.float() / temperature).softmax(1), 1, generator=generator)[:, 0]
    return logits, labels


def probs_and_labels(seed: int = 0, n: int = 600, c: int = 5, **options) -> tuple[Tensor, Tensor]:
    logits, labels = logits_and_labels(seed, n, c, **options)
    return logits.softmax(1), labels


def proximities(seed: int = 0, n: int = 600) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(seed + 1000)) * 0.5 + 0.3


class _Classifier(ClassifierMixin, BaseEstimator):
    """Says what it is given."""

    def fit(self, scores: np.ndarray, labels: np.ndarray) -> "_Classifier":
        self.classes_ = np.arange(scores.shape[1])
        return self

    def predict(self, scores: np.ndarray) -> np.ndarray:
        return scores.argmax(1)


class _OfLogits(_Classifier):
    def decision_function(self, scores: np.ndarray) -> np.ndarray:
        return scores


class _OfProbabilities(_Classifier):
    def predict_proba(self, scores: np.ndarray) -> np.ndarray:
        return scores


def calibrated_by_scikit_learn(method: str, scores: Tensor, labels: Tensor, new: Tensor) -> Tensor:
    """Probabilities for ``new`` after scikit-learn calibrated logits (``"temperature"``) or probabilities."""
    kind = _OfLogits if method == "temperature" else _OfProbabilities
    model = kind().fit(scores.numpy(), labels.numpy())
    fitted = CalibratedClassifierCV(FrozenEstimator(model), method=method).fit(scores.numpy(), labels.numpy())
    return torch.from_numpy(fitted.predict_proba(new.numpy()))
