import json

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pyfastcal.clip import encode_dataset, encode_images, encode_text, import_open_clip, load_clip
from pyfastcal.clip.features import load_text_features, save_text_features

NAMES = ["digit one", "digit two", "letter q"]


@pytest.fixture(scope="module")
def images(task):
    return task.base_test.images[:23]


@pytest.fixture(scope="module")
def expected(clip, images):
    with torch.no_grad():
        return clip.model.encode_image(images, normalize=True)


class Stream(IterableDataset):
    def __init__(self, images):
        self.images = images

    def __iter__(self):
        return iter(self.images)


def test_tensors_datasets_and_loaders_give_the_same(clip, images, expected):
    labelled = TensorDataset(images, torch.arange(len(images)))
    for source in (images, labelled, DataLoader(labelled, batch_size=5), Stream(images)):
        features = encode_images(clip.model, source, batch_size=7)
        torch.testing.assert_close(features, expected)
        assert not features.requires_grad and features.dtype == torch.float32
    features, labels = encode_dataset(clip.model, DataLoader(labelled, batch_size=4))
    torch.testing.assert_close(features, expected)
    assert torch.equal(labels, torch.arange(len(images)))


def test_progress_tells_what_is_done(clip, images):
    seen = []
    encode_images(clip.model, images, batch_size=10, progress=lambda *at: seen.append(at))
    assert seen == [(10, 23), (20, 23), (23, 23)]
    seen.clear()
    encode_images(clip.model, Stream(images), batch_size=10, progress=lambda *at: seen.append(at))
    assert seen == [(10, 0), (20, 0), (23, 0)]


def test_the_model_runs_in_evaluation_mode_and_goes_back(images):
    config = {
        "image_size": 32,
        "patch_size": 8,
        "width": 32,
        "layers": 1,
        "head_width": 32,
        "patch_dropout": 0.5,
    }
    text = {"context_length": 8, "vocab_size": 20, "width": 32, "heads": 1, "layers": 1}
    model = import_open_clip().CLIP(embed_dim=8, vision_cfg=config, text_cfg=text).train()
    first, again = encode_images(model, images), encode_images(model, images)
    assert torch.equal(first, again) and model.training


def test_autocast_and_half_precision_models(clip, images, expected):
    under_autocast = encode_images(clip.model, images, autocast=torch.bfloat16)
    assert under_autocast.dtype == torch.float32 and not torch.equal(under_autocast, expected)
    torch.testing.assert_close(under_autocast, expected, atol=0.05, rtol=0)
    model, _, tokenizer = load_clip("pyfastcal/digits")
    import_open_clip().model.convert_weights_to_lp(model, dtype=torch.bfloat16)
    torch.testing.assert_close(encode_images(model.bfloat16(), images), expected, atol=0.05, rtol=0)
    assert encode_text(model, tokenizer, NAMES).dtype == torch.float32


def test_text_features_of_one_and_of_several_templates(clip):
    templates = ["a photo of the {}.", "a scan of the {}."]
    with torch.no_grad():
        single = [
            clip.model.encode_text(clip.tokenizer([t.format(n) for n in NAMES]), normalize=True) for t in templates
        ]
    torch.testing.assert_close(encode_text(clip.model, clip.tokenizer, NAMES, templates[0]), single[0])
    both = encode_text(clip.model, clip.tokenizer, NAMES, templates, batch_size=2)
    torch.testing.assert_close(both, F.normalize(single[0] + single[1], dim=-1))


def test_bad_input_is_named(clip, images):
    for source, message in [
        (images[0], "images must have 4 dimensions"),
        ("photos", "images must be a tensor, a dataset or a DataLoader, got 'photos'"),
        (images[:0], "images must not be empty"),
        ([{"image": images[0]}], "images must come as tensors or .image, label., got a dict"),
    ]:
        with pytest.raises(ValueError, match=rf"^{message}"):
            encode_images(clip.model, source)
    with pytest.raises(ValueError, match=r"^dataset must give .image, label., got images without labels"):
        encode_dataset(clip.model, TensorDataset(images))
    with pytest.raises(ValueError, match=r"^model must have encode_image"):
        encode_images(torch.nn.Linear(2, 2), images)
    with pytest.raises(ValueError, match=r"^batch_size must be an integer of at least 1"):
        encode_images(clip.model, images, batch_size=0)
    for names, template, message in [
        ([], "{}", "classnames must not be empty"),
        (["digit one", ""], "{}", "classnames must be a list of names"),
        (NAMES, "a photo", r"template must be a text with one \{\} for the class name, got 'a photo'"),
        (NAMES, [], "template must be a template or a list of them"),
    ]:
        with pytest.raises(ValueError, match=rf"^{message}"):
            encode_text(clip.model, clip.tokenizer, names, template)


def test_load_clip_takes_both_kinds_of_names(clip, tmp_path):
    model, preprocess, tokenizer = load_clip("pyfastcal/digits")
    assert torch.equal(model.visual.proj, clip.model.visual.proj) and tokenizer("digit one").shape == (1, 26)
    assert preprocess.transforms
    open_clip = import_open_clip()
    config = open_clip.get_model_config("ViT-B-32")
    config["vision_cfg"] |= {"layers": 1, "width": 64}
    config["text_cfg"] |= {"layers": 1, "width": 64, "heads": 1}
    (tmp_path / "ViT-tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "ViT-tiny.json")
    random = open_clip.create_model("ViT-tiny", load_weights=False)
    weights = tmp_path / "weights.pt"
    torch.save(random.state_dict(), weights)
    model, _, tokenizer = load_clip("ViT-tiny", str(weights))
    assert torch.equal(model.visual.proj, random.visual.proj) and tokenizer(["dog"]).shape == (1, 77)
    for name, pretrained, message in [
        ("pyfastcal/letters", None, "name must be one of 'digits', 'shapes'"),
        ("ViT-Z", None, r"model_name must be one of open_clip.list_models\(\), got 'ViT-Z'"),
        ("ViT-B-32", None, "pretrained must be a file or a tag of ViT-B-32 .known: openai"),
        ("ViT-B-32", "nowhere", "model_name: 'ViT-B-32' .pretrained 'nowhere'. did not load"),
        ("local-dir:/nowhere", None, "model_name: 'local-dir:/nowhere'"),
    ]:
        with pytest.raises(ValueError, match=rf"^{message}"):
            load_clip(name, pretrained)


def test_saved_text_features(tmp_path):
    path = tmp_path / "texts.safetensors"
    features = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    save_text_features(path, features, NAMES, learner="CoOp")
    loaded, names = load_text_features(path)
    assert torch.equal(loaded, features) and names == NAMES
    some, names = load_text_features(path, ["letter q", "digit one"])
    assert torch.equal(some, features[[2, 0]]) and names == ["letter q", "digit one"]
    with pytest.raises(ValueError, match=r"texts.safetensors: text_features lacks the class 'digit six'"):
        load_text_features(path, ["digit six"])
    with pytest.raises(ValueError, match="nowhere: no such file"):
        load_text_features(tmp_path / "nowhere")
    (tmp_path / "broken").write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="broken: not a complete file of text features"):
        load_text_features(tmp_path / "broken")
    with pytest.raises(ValueError, match=r"^classnames must have 3 entries, one per row of features, got 2"):
        save_text_features(path, features, NAMES[:2])
    assert torch.equal(load_text_features(path)[0], features)
