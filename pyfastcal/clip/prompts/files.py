"""Files of learners, as pyfastcal writes them: safetensors, the settings as JSON in the metadata."""

import json
import os
from collections.abc import Callable
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...arguments import checks
from ...io.paths import atomic_write, regular


def save(learner: Any, path: str | os.PathLike) -> None:
    """Write the state and the settings of a :class:`PromptLearner`."""
    settings = {"learner": type(learner).__name__, "template": learner.template}
    settings |= {name: getattr(learner, name) for name in learner.hyperparameters}
    tensors = {name: value.cpu().contiguous() for name, value in learner.state_dict().items()}
    atomic_write(path, lambda name: save_file(tensors, name, metadata={"pyfastcal": json.dumps(settings)}))


def learner_of(path: str | os.PathLike) -> str | None:
    """The name of the learner that :func:`save` wrote to the file; None where it is another file."""
    try:
        with safe_open(regular(path), framework="pt") as file:
            return json.loads((file.metadata() or {}).get("pyfastcal", "{}")).get("learner")
    except (SafetensorError, OSError, ValueError, AttributeError, RecursionError):  # metadata that is no dictionary
        return None


def load(
    path: str | os.PathLike, kinds: dict[str, type], clip: Any, tokenizer: Callable[..., Tensor] | None = None
) -> Any:
    """Read what :func:`save` wrote, a learner of one of the ``kinds``. ValueError that names the file."""
    where, wanted = os.fspath(path), " or a ".join(kinds)
    try:
        with safe_open(regular(where), framework="pt") as file:
            settings = dict(json.loads((file.metadata() or {})["pyfastcal"]))
            name, template = str(settings.pop("learner")), settings.pop("template")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:
        saved = f"{wanted}.save" if len(kinds) == 1 else "a learner's save"
        raise ValueError(f"{where}: not a file of {saved} ({error})") from error
    if name not in kinds:
        raise ValueError(f"{where}: holds a {name}, not a {wanted}")
    for key, value in tensors.items():
        checks.finite(f"{where}: {key}", checks.floating(f"{where}: {key}", value, value.ndim))
    try:
        learner = kinds[name](clip, tokenizer, template, **settings)
        learner.load_state_dict(tensors)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    except RuntimeError as error:
        raise ValueError(f"{where}: does not fit the model: {' '.join(str(error).split())}") from error
    return learner
