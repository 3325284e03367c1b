"""What the ops give without computing it: shapes and dtypes, for ``torch.compile``, ``torch.export`` and the meta
device. Importing this registers them, where there are kernels to stand for."""

from collections.abc import Callable

import torch
from torch import Tensor

from . import extension


def fake(op: str) -> Callable:
    if extension.C is None:  # nothing registered the op
        return lambda function: function
    return torch.library.register_fake(f"pyfastcal::{op}")


@fake("knn")
def _(queries, bank, k, exclude_self, normalize):
    shape = (queries.shape[0], k)
    return queries.new_empty(shape, dtype=torch.float32), queries.new_empty(shape, dtype=torch.int64)


def _fake_confidence(rows: Tensor) -> tuple[Tensor, Tensor]:
    n = rows.shape[0]
    return rows.new_empty(n, dtype=torch.float32), rows.new_empty(n, dtype=torch.int64)


@fake("confidence")
def _(logits, class_weight, sample_weight):
    return _fake_confidence(logits)


@fake("similarity_confidence")
def _(image_features, text_features, logit_scale, logit_bias, class_weight, sample_weight, normalize):
    return _fake_confidence(image_features)


@fake("contrast_distance")
def _(image_features, text_features, zeroshot_image, zeroshot_text, probability, logit_scale, normalize):
    return image_features.new_empty(image_features.shape[0], dtype=torch.float32)


@fake("bin_counts")
def _(confidence, correct, edges, n_bins, group, n_groups, closed_right):
    shape = (3, n_groups, n_bins)
    return confidence.new_empty(shape, dtype=torch.int64), confidence.new_empty((), dtype=torch.int64)


@fake("nll")
def _(logits, labels, beta):
    return logits.new_empty(3, dtype=torch.float64)


@fake("log_density")
def _(queries, points, bandwidth):
    return queries.new_empty(queries.shape[0], dtype=torch.float64)


@fake("similarity")
def _(image_features, text_features, normalize):
    return image_features.new_empty(image_features.shape[0], text_features.shape[0], dtype=torch.float32)
