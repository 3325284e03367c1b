"""The prompt learners as tests tune them."""

import pytest

from pyfastcal.clip.prompts import LEARNERS

# Few steps, at rates at which the loss falls soon.
SHORT = {
    "CoOp": dict(epochs=12),
    "CoCoOp": dict(epochs=4, batch_size=8, lr=0.05),
    "ProDA": dict(epochs=5, batch_size=16, n_prompts=8, lr=5e-4),
    "KgCoOp": dict(epochs=12, batch_size=32, lr=0.02),
    "MaPLe": dict(epochs=3),
    "ProGrad": dict(epochs=12, lr=0.005),
    "PromptSRC": dict(epochs=3, mu=3),
}
TUNE_IMAGES = {"MaPLe", "PromptSRC"}
every_learner = pytest.mark.parametrize("name", LEARNERS)
