"""Files of published trainers are not trusted: bad ones are named, and nothing in them is run."""

import pickle
import zipfile

import numpy as np
import pytest
import torch

from pyfastcal.clip import import_open_clip, prompts
from pyfastcal.clip.prompts import CoCoOp, ProDA, load_published

from .published import DIM, IMAGE_WIDTH, NAMES, WIDTH, maple_state, promptsrc_state, save, states


def test_prompts_of_another_clip_are_refused(clip, path):
    torch.manual_seed(0)
    other = import_open_clip().CLIP(
        embed_dim=DIM,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": IMAGE_WIDTH, "layers": 3, "head_width": 32},
        text_cfg={"context_length": 26, "vocab_size": 85, "width": WIDTH, "heads": 2, "layers": 2},
    )
    for state in (maple_state(clip), promptsrc_state(clip)):
        save(state, path)
        with pytest.raises(ValueError, match=r"model.pth.tar-50: clip must be the model that was tuned"):
            load_published(path, other, clip.tokenizer)
    custom = import_open_clip().CustomTextCLIP(
        embed_dim=DIM,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": IMAGE_WIDTH, "layers": 3, "head_width": 32},
        text_cfg={"context_length": 26, "vocab_size": 85, "width": WIDTH, "heads": 2, "layers": 2},
    )
    own = clip.model.state_dict()
    custom.load_state_dict({key: own[key.removeprefix("text.")] for key in custom.state_dict()})
    loaded = [load_published(path, m, clip.tokenizer) for m in (clip.model, custom.eval())]
    torch.testing.assert_close(loaded[0].text_features(NAMES), loaded[1].text_features(NAMES))


def test_bad_files_are_named(clip, path):
    good = states(clip)
    maple = {key: x for key, x in good["MaPLe"].items() if "projections" not in key}
    for state, options, message in [
        ({"weights": torch.zeros(3)}, {}, "must have the keys of a published trainer, such as ctx, got weights"),
        ({"ctx": torch.zeros(2, 16, 64)}, {}, r"ctx must be one context .M, width., got a float16 tensor .*\(CSC\)"),
        ({"ctx": torch.zeros(16, 64)}, {"learner": ProDA}, r"ctx must be contexts .K, M, width., got a float16"),
        ({"ctx": torch.zeros(16, 32)}, {}, r"context must have the shape \(16, 64\) .* got \(16, 32\)"),
        (maple, {}, "prompt_learner.compound_prompt_projections.0.weight is missing, not a checkpoint of MaPLe"),
        (good["CoOp"], {"learner": CoCoOp}, "meta_net.linear1.weight is missing, not a checkpoint of CoCoOp"),
        (good["PromptSRC"], {"depth_text": 1}, r"deep_context.0 must have the shape nothing .* got \(4, 64\)"),
        (
            {"ctx": torch.zeros(0, 64)},
            {},
            r"ctx must be one context .M, width., got a float16 tensor of shape \(0, 64\)",
        ),
        ({"ctx": torch.full((16, 64), torch.nan)}, {}, "context must be finite, got 1024 NaN or infinite values$"),
        (good["MaPLe"] | {"prompt_learner.ctx": torch.tensor(0.0)}, {}, "prompt_learner.ctx must be one context"),
        (good["PromptSRC"] | {"image_encoder.VPT": torch.tensor(0.0)}, {}, "image_encoder.VPT must be one context"),
    ]:
        with pytest.raises(ValueError, match=rf"model.pth.tar-50: {message}"):
            load_published(save(state, path), clip, **options)
    for key, got in [(0, "0"), (None, "None"), (("ctx",), "a tuple")]:
        torch.save({"state_dict": {key: torch.zeros(16, 64)}}, path)
        with pytest.raises(ValueError, match=rf"model.pth.tar-50: state_dict must have texts as keys, got {got}$"):
            load_published(path, clip)
    torch.save({"state_dict": {"ctx": torch.zeros(16, 64, dtype=torch.int64)}}, path)
    with pytest.raises(ValueError, match=r"model.pth.tar-50: context must be floating point"):
        load_published(path, clip)
    with pytest.raises(ValueError, match=r"nowhere: no such file"):
        load_published("nowhere", clip)
    path.write_bytes(save(good["CoOp"], path).read_bytes()[:900])
    with pytest.raises(ValueError, match=r"model.pth.tar-50: not a checkpoint that torch.load"):
        load_published(path, clip)
    sparse = torch.eye(64).to_sparse()
    for content in (torch.zeros(3), {"epoch": 3}, *({"state_dict": {"ctx": x}} for x in ([1.0], sparse, None))):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"model.pth.tar-50: state_dict must be in the file"):
            load_published(path, clip)
    with pytest.raises(ValueError, match=r"^learner must be one of pyfastcal.clip.prompts, got PromptLearner"):
        load_published(save(good["CoOp"], path), clip, learner=prompts.PromptLearner)


def rewritten(path, old, new):
    """The checkpoint with other bytes in its pickle."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            assert not name.endswith("data.pkl") or old in data
            archive.writestr(name, data.replace(old, new) if name.endswith("data.pkl") else data)
    return path


@pytest.mark.parametrize("scalar", [np.float64(87.5), np.float32(87.5), np.int64(3), np.bool_(True)])
def test_numpy_scalars_beside_the_weights(clip, path, scalar):
    """As model-best.pth.tar has it, the best validation result."""
    path.parent.mkdir()
    state = states(clip)["CoOp"]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # of NumPy 1 and 2
        torch.save({"state_dict": state, "epoch": 50, "val_result": scalar}, path)
        rewritten(path, scalar.__reduce__()[0].__module__.encode(), module.encode())
        assert torch.equal(load_published(path, clip).context.detach(), state["ctx"])


def test_of_numpy_scalars_alone_are_allowed(clip, path):
    path.parent.mkdir()
    for other, name in [(np.zeros(3), "_reconstruct"), (np.sum, "sum"), (Hostile(), "exec")]:
        content = {"state_dict": states(clip)["CoOp"], "val_result": np.float64(87.5), "other": other}
        torch.save(content, path)
        with pytest.raises(
            ValueError, match=rf"model.pth.tar-50: not a checkpoint .*Unsupported global: GLOBAL \S*{name}"
        ):
            load_published(path, clip)
    torch.save({"state_dict": {"ctx": np.float64(87.5)}}, path)
    with pytest.raises(ValueError, match=r"model.pth.tar-50: state_dict must be in the file, .* got ctx that is none"):
        load_published(path, clip)


class Hostile:
    def __reduce__(self):
        return exec, ("import builtins; builtins.was_run = True",)


def test_nothing_in_a_file_is_run(clip, path):
    import builtins

    path.parent.mkdir()
    allowed = set(torch.serialization.get_safe_globals())
    content = {"state_dict": states(clip)["CoOp"], "scheduler": {"successor": Hostile()}}
    torch.save(content, path)
    with pytest.raises(
        ValueError, match=r"model.pth.tar-50: not a checkpoint .*\(Unsupported global: GLOBAL \S*exec\)$"
    ):
        load_published(path, clip)
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=r"model.pth.tar-50: not a checkpoint"):
        load_published(path, clip)
    assert not hasattr(builtins, "was_run")
    assert set(torch.serialization.get_safe_globals()) == allowed
