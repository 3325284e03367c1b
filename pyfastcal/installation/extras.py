"""Imports of the optional packages, with an error that says what to install."""

import importlib
import importlib.util
from types import ModuleType

from . import commands

# What each extra of pyproject.toml brings: modules, by the name of the package on the index.
EXTRAS = {
    "clip": {"open_clip_torch": "open_clip", "torchvision": "torchvision", "pillow": "PIL"},
    "metrics": {"torchmetrics": "torchmetrics"},
    "report": {"matplotlib": "matplotlib"},
    "parquet": {"pyarrow": "pyarrow"},
    "isotonic": {"scikit-learn": "sklearn"},
}
EXTRAS["demo"] = EXTRAS["clip"] | EXTRAS["report"] | EXTRAS["isotonic"]


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or raise an ImportError that names it and the command that installs the extra with it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the package is there; something it needs is not
        raise ImportError(f"pyfastcal needs {module} for this: {commands.with_extra(extra)}") from error


def require_all(extra: str) -> None:
    """ImportError, before any work is done, that names all that is missing of an extra, and what installs it."""
    missing = [package for package, module in EXTRAS[extra].items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f"pyfastcal needs {', '.join(missing)} for this: {commands.with_extra(extra)}")
