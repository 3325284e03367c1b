"""CLIP side of pyfastcal: bundled small models, open-vocabulary tasks, prompt learning, feature extraction.

Needs the extra ``pyfastcal[clip]``; open_clip is imported at first use, through :func:`import_open_clip`
alone."""

from . import prompts, tasks
from .adapters import scale_and_bias
from .features import (
    ImageFolder,
    encode_dataset,
    encode_images,
    encode_split,
    encode_text,
    load_clip,
    torchvision_dataset,
)
from .open_clip_import import import_open_clip
from .small import SmallCLIP, load_small
from .wrap import Calibrated, Classifier, wrap

__all__ = [
    "Calibrated",
    "Classifier",
    "ImageFolder",
    "SmallCLIP",
    "encode_dataset",
    "encode_images",
    "encode_split",
    "encode_text",
    "import_open_clip",
    "load_clip",
    "load_small",
    "prompts",
    "scale_and_bias",
    "tasks",
    "torchvision_dataset",
    "wrap",
]
