"""Imports of the optional packages, with an error that says what to install."""

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or raise an ImportError that names the extra of pyfastcal that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the package is there; something it needs is not
        raise ImportError(f"pyfastcal needs {module} for this: pip install 'pyfastcal[{extra}]'") from error
