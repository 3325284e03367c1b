"""Checkpoints of the published trainers, as they lie in ``<output>/<model name>/model.pth.tar-<epoch>``.

A file is a dictionary with the ``state_dict`` of what was trained, beside the state of its optimizer and
scheduler. What of it is read, by the names it has there:

=========== ========================= ================================================================
learner     model name                keys
=========== ========================= ================================================================
CoOp        prompt_learner            ctx (M, width)
KgCoOp      prompt_learner            the same (the published one has an unused meta_net, too)
ProGrad     prompt_learner            the same
CoCoOp      prompt_learner            ctx, meta_net.linear1 and .linear2 .weight and .bias
ProDA       prompt_learner            ctx (K, M, width)
MaPLe       MultiModalPromptLearner   prompt_learner. ctx, proj, compound_prompts_text.k,
                                      compound_prompt_projections.k
PromptSRC   VLPromptLearner           prompt_learner.ctx, image_encoder.VPT,
                                      {text,image}_encoder.transformer.resblocks.k.VPT_shallow
=========== ========================= ================================================================

``token_prefix`` and ``token_suffix`` are embeddings of the classes that were tuned on: they are dropped, so
that features of any classes can be had. MaPLe's and PromptSRC's files hold the whole CLIP; it is compared
with the one given, and dropped."""

import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import checks
from ...paths import regular
from .cocoop import CoCoOp
from .coop import CoOp
from .learner import PromptLearner
from .maple import MaPLe
from .proda import ProDA
from .promptsrc import PromptSRC

State = dict[str, Tensor]
# Of the CLIP in whole models: the file's name, open_clip's, an end of each tower.
_ENDS = {"text_encoder.positional_embedding": "positional_embedding", "image_encoder.proj": "visual.proj"}


def load_published(
    path: str | os.PathLike,
    clip: Any,
    tokenizer: Callable[..., Tensor] | None = None,
    template: str = "a photo of a {}.",
    *,
    learner: type[PromptLearner] | None = None,
    **options: Any,
) -> PromptLearner:
    """The learner in a checkpoint of its published trainer, over ``clip``, which must be the CLIP it tuned.

    ``learner``: its class; by default what the keys tell, CoOp for the three whose files look alike and whose
    features are made alike. ``options``: settings that the file does not hold. The class name is taken to
    stand at the end. Read with ``torch.load(weights_only=True)``: nothing in the file is run.

    ValueError, naming the file, where it is none, is of another learner, of contexts for single classes, or
    does not fit the CLIP."""
    where = os.fspath(path)
    state = read(where)
    kind = learner or kind_of(state, where)
    parameters = next((found for known, found in _PARAMETERS.items() if issubclass(kind, known)), None)
    if parameters is None:
        raise ValueError(f"learner must be one of pyfastcal.clip.prompts, got {kind.__name__}")
    try:
        values, found = parameters(state)
    except KeyError as error:
        raise ValueError(f"{where}: {error.args[0]} is missing, not a checkpoint of {kind.__name__}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    tuned = kind(clip, tokenizer, template, **(found | options))
    _check_clip(state, tuned, where)
    if "context_init" not in options:
        _check_words(state, tuned)
    own = tuned.state_dict()
    for name in {**dict(tuned.named_parameters()), **values}:
        got, wanted = (tuple(x[name].shape) if name in x else "nothing" for x in (values, own))
        if got != wanted:
            raise ValueError(f"{where}: {name} must have the shape {wanted} that the model takes, got {got}")
    tuned.load_state_dict({name: value.to(own[name].dtype) for name, value in values.items()}, strict=False)
    return tuned


def read(path: str | os.PathLike) -> State:
    """The ``state_dict`` of a checkpoint, on the CPU. ValueError, naming the file, where there is none."""
    where = os.fspath(path)
    regular(where)
    try:
        with torch.serialization.safe_globals(_harmless()):
            checkpoint = torch.load(where, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{where}: not a checkpoint that torch.load(weights_only=True) takes ({_why(error)})"
        ) from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{where}: state_dict must be in the file, a dictionary of tensors")
    return {name.removeprefix("module."): value for name, value in state.items()}


class _Ignored:
    """Stands in the place of an optimizer or scheduler in a file; takes its state and forgets it."""

    def __setstate__(self, state: Any) -> None:
        pass


def _no_default(*factory: Any) -> OrderedDict:
    """Stands in the place of a defaultdict, which the weights-only loader does not fill."""
    return OrderedDict()


def _harmless() -> list[Any]:
    """What the names of the objects beside the weights stand for: the scheduler's state holds the scheduler
    that it wraps, and that the optimizer."""
    kinds = ("sgd.SGD", "adam.Adam", "adamw.AdamW", "lr_scheduler.CosineAnnealingLR")
    ignored = [(_Ignored, f"torch.optim.{name}") for name in kinds]
    return [*ignored, (_no_default, "collections.defaultdict"), (dict, "builtins.dict")]


def _why(error: Exception) -> str:
    """The line of torch's long message that says it."""
    lines = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    line = next((line.strip() for line in lines.splitlines() if line.strip()), type(error).__name__)
    return line.partition(" was not an allowed global")[0]


def kind_of(state: State, where: str = "checkpoint") -> type[PromptLearner]:
    """The learner whose keys they are."""
    if "prompt_learner.proj.weight" in state:
        return MaPLe
    if "image_encoder.VPT" in state:
        return PromptSRC
    if "meta_net.linear2.weight" in state:
        return CoCoOp
    if "ctx" in state:
        return ProDA if "nc_token_prefix" in state else CoOp
    raise ValueError(
        f"{where}: must have the keys of a published trainer, such as ctx, got {', '.join(state) or 'none'}"
    )


def _coop(state: State) -> tuple[State, dict[str, Any]]:
    context = state["ctx"]
    if context.ndim != 2:
        hint = "those of single classes (CSC) give no features of others, ProDA's need learner=ProDA"
        raise ValueError(f"ctx must be one context (M, width), got {checks.describe(context)}: {hint}")
    return {"context": context}, {"n_context": len(context)}


def _cocoop(state: State) -> tuple[State, dict[str, Any]]:
    values, found = _coop(state)
    names = [f"meta_net.{layer}.{part}" for layer in ("linear1", "linear2") for part in ("weight", "bias")]
    return values | {name: state[name] for name in names}, found


def _proda(state: State) -> tuple[State, dict[str, Any]]:
    context = state["ctx"]
    if context.ndim != 3:
        raise ValueError(f"ctx must be contexts (K, M, width), got {checks.describe(context)}")
    found = {"n_prompts": len(context), "n_context": context.shape[1]}
    if len(context) % ProDA.prompt_batch:
        found["prompt_batch"] = 1
    return {"context": context}, found


def _maple(state: State) -> tuple[State, dict[str, Any]]:
    p = "prompt_learner."
    values = {"context": state[f"{p}ctx"]}
    for part in ("weight", "bias"):
        values[f"coupling.0.{part}"] = state[f"{p}proj.{part}"]
    deep = _numbered(state, rf"{p}compound_prompts_text\.(\d+)")
    for i, prompt in enumerate(deep):
        values[f"deep_context.{i}"] = prompt
        for part in ("weight", "bias"):
            values[f"coupling.{i + 1}.{part}"] = state[f"{p}compound_prompt_projections.{i}.{part}"]
    return values, {"n_context": len(values["context"]), "depth": len(deep) + 1}


def _promptsrc(state: State) -> tuple[State, dict[str, Any]]:
    values = {"context": state["prompt_learner.ctx"], "vision_context": state["image_encoder.VPT"]}
    found = {"n_context": len(values["context"]), "n_context_vision": len(values["vision_context"])}
    for tower, name, depth in (
        ("text", "deep_context", "depth_text"),
        ("image", "deep_vision_context", "depth_vision"),
    ):
        deep = _numbered(state, rf"{tower}_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow")
        values |= {f"{name}.{i}": prompt for i, prompt in enumerate(deep)}
        found[depth] = len(deep) + 1
    return values, found


_PARAMETERS: dict[type[PromptLearner], Callable[[State], tuple[State, dict[str, Any]]]] = {
    CoCoOp: _cocoop,  # a CoOp, too: the first that fits counts
    CoOp: _coop,
    ProDA: _proda,
    MaPLe: _maple,
    PromptSRC: _promptsrc,
}


def _numbered(state: State, pattern: str) -> list[Tensor]:
    """The values whose names match, in the order of the number in them."""
    found = {int(match[1]): value for name, value in state.items() if (match := re.fullmatch(pattern, name))}
    return [found[i] for i in sorted(found)]


def _check_clip(state: State, tuned: PromptLearner, where: str) -> None:
    """Prompts mean nothing to another CLIP: where the file holds its own, it must be the one given. In half
    precision, and PromptSRC's averaged over the epochs in it: within five per cent."""
    parts = dict(tuned.clip.named_parameters())
    for name, own in _ENDS.items():
        if name not in state:
            continue
        ours = parts[own if own in parts else f"text.{own}"].detach().float().cpu()
        theirs = state[name].float()
        if theirs.shape != ours.shape or (theirs - ours).norm() > 0.05 * ours.norm():
            raise ValueError(f"{where}: clip must be the model that was tuned, but {name} in the file is another")


def _check_words(state: State, tuned: PromptLearner) -> None:
    """Whether words of ``context_init`` stand between the context and the names, as in MaPLe's official
    trainer, is seen by the suffix of the classes that were tuned on; if not, there were none."""
    ids, suffix = tuned.init_ids()[tuned.n_context :], state.get("prompt_learner.token_suffix")
    if not len(ids) or suffix is None or suffix.shape[1] < len(ids):
        return
    words = tuned.towers.embed(ids).detach().float().cpu()
    if suffix.shape[2:] != words.shape[1:] or (suffix[:, : len(ids)].float() - words).norm(dim=-1).amax() > 1e-2:
        tuned.context_init = ""
