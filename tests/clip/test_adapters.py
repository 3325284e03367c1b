"""Features of models of every make: open_clip's, transformers' of small random configurations, functions."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pyfastcal.clip import ImageFolder, encode_dataset, encode_images, encode_split, encode_text, scale_and_bias
from pyfastcal.clip.adapters import evaluating
from pyfastcal.clip.prompts import CoOp, MaPLe

from . import hugging

NAMES = ["digit one", "digit two", "letter q"]
TEMPLATE = "a photo of the {}."


@pytest.fixture(scope="module")
def images(task):
    return task.base_test.images[:13]


@pytest.fixture(scope="module", params=["clip", "siglip"])
def model(request):
    return hugging.clip_model() if request.param == "clip" else hugging.siglip_model()


@pytest.fixture(scope="module")
def tokenizer(model):
    return hugging.tokenizer(mask=type(model).__name__ == "CLIPModel")


class Samples(Dataset):
    """As transformers' collators give them."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return {"pixel_values": self.images[i], "labels": i % 3}


def test_transformers_features_are_those_of_its_own_forward(model, tokenizer, images):
    ids = tokenizer([TEMPLATE.format(n) for n in NAMES], padding="max_length", max_length=16, return_tensors="pt")
    with torch.no_grad():
        out = model(**ids, pixel_values=images)
    features = encode_images(model, images, batch_size=5)
    texts = encode_text(model, tokenizer, NAMES, TEMPLATE, batch_size=2)
    torch.testing.assert_close(features, out.image_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(texts, out.text_embeds, rtol=1e-4, atol=1e-5)
    scale, bias = scale_and_bias(model)
    logits = scale * features @ texts.T + (bias or 0.0)
    torch.testing.assert_close(logits, out.logits_per_image, rtol=1e-4, atol=1e-4)
    assert (bias is None) == (type(model).__name__ == "CLIPModel")


def test_a_feature_file_of_a_transformers_model(model, tokenizer, images):
    split = encode_split(model, Samples(images), NAMES, tokenizer, TEMPLATE, batch_size=4, meta={"seed": 1})
    ids = tokenizer([TEMPLATE.format(n) for n in NAMES], padding="max_length", max_length=16, return_tensors="pt")
    with torch.no_grad():
        out = model(**ids, pixel_values=images)
    logits = split.logit_scale * split.image_features @ split.text_features.T + (split.logit_bias or 0.0)
    torch.testing.assert_close(logits, out.logits_per_image, rtol=1e-4, atol=1e-4)
    assert split.labels.tolist() == [i % 3 for i in range(13)] and split.classnames == NAMES
    assert split.meta == {"seed": 1} and torch.equal(split.text_features, split.zeroshot_text_features)


def test_tokenizers_of_other_makes_work_with_transformers_models(model, tokenizer):
    expected = encode_text(model, tokenizer, NAMES, TEMPLATE)

    def ids(texts):
        return tokenizer(texts, padding="max_length", max_length=16, return_tensors="pt")["input_ids"]

    torch.testing.assert_close(encode_text(model, ids, NAMES, TEMPLATE), expected, rtol=1e-4, atol=1e-5)
    too_long = encode_text(model, tokenizer, ["digit one " * 20], TEMPLATE)  # cut, as open_clip's are
    assert too_long.isfinite().all()


def test_half_precision_and_autocast(model, tokenizer, images):
    expected = encode_images(model, images), encode_text(model, tokenizer, NAMES)
    half = copy.deepcopy(model).bfloat16()
    found = [
        (encode_images(half, images), encode_text(half, tokenizer, NAMES)),
        (
            encode_images(model, images, autocast=torch.bfloat16),
            encode_text(model, tokenizer, NAMES, autocast=torch.bfloat16),
        ),
    ]
    for pair in found:
        for x, y in zip(pair, expected, strict=True):
            assert x.dtype == torch.float32 and not torch.equal(x, y)
            assert F.cosine_similarity(x, y).min() > 0.99


def test_an_image_folder_through_a_transformers_processor(model, tmp_path):
    image_module = pytest.importorskip("PIL.Image")
    generator = torch.Generator().manual_seed(0)
    for name in ("digit_one", "digit_two"):
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = torch.randint(0, 256, (40, 50, 3), generator=generator, dtype=torch.uint8).numpy()
            image_module.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    processor = hugging.image_processor()
    folder = ImageFolder(tmp_path, processor)
    features, labels = encode_dataset(model, DataLoader(folder, batch_size=4))
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    pictures = [image_module.open(file).convert("RGB") for file, _ in folder.files]
    with torch.no_grad():
        out = model.get_image_features(**processor(images=pictures, return_tensors="pt"))
    torch.testing.assert_close(features, F.normalize(out.pooler_output, dim=1), rtol=1e-4, atol=1e-5)


def test_parts_of_transformers_models(images):
    model = hugging.clip_model()
    vision = hugging.vision_model(model)
    torch.testing.assert_close(encode_images(vision, images), encode_images(model, images))


def test_functions_and_modules_of_ones_own(clip, images):
    expected = encode_images(clip.model, images)
    seen = []

    def double(batch):
        seen.append(batch.dtype)
        return clip.model.encode_image(batch.float()).double() * 3

    torch.testing.assert_close(encode_images(double, images.double(), batch_size=4), expected)
    assert seen == [torch.float64] * 4  # a function gets images as they come
    torch.testing.assert_close(encode_images(clip.model.visual, images.double()), expected)
    texts = encode_text(clip.model, clip.tokenizer, NAMES, TEMPLATE)
    torch.testing.assert_close(encode_text(clip.model.encode_text, clip.tokenizer, NAMES, TEMPLATE), texts)
    of_texts = lambda sentences: clip.model.encode_text(clip.tokenizer(sentences))  # noqa: E731
    torch.testing.assert_close(encode_text(of_texts, None, NAMES, TEMPLATE, batch_size=2), texts)


def test_a_feature_file_of_a_learner(clip, task, tmp_path):
    from pyfastcal.io import load_features, save_features

    data = TensorDataset(*(x[:20] for x in task.new_test))
    for kind in (CoOp, MaPLe):
        learner = kind(clip, template=task.template, epochs=1).fit(*task.train, task.base_classes)
        calls = []
        split = encode_split(
            learner, data, task.new_classes, batch_size=8, progress=lambda *at, calls=calls: calls.append(at)
        )
        assert calls == [(8, 20), (16, 20), (20, 20)]  # one pass over the images, for both models too
        save_features(tmp_path / "split.safetensors", split)
        loaded = load_features(tmp_path / "split.safetensors")
        images = task.new_test.images[:20]
        torch.testing.assert_close(loaded.image_features, learner.features(images))
        torch.testing.assert_close(loaded.zeroshot_images, learner.zeroshot_features(images))
        assert torch.equal(loaded.text_features, learner.text_features(task.new_classes))
        assert torch.equal(loaded.zeroshot_text_features, learner.zeroshot_text_features(task.new_classes))
        assert (loaded.zeroshot_image_features is not None) == (kind is MaPLe)
        logits = loaded.logit_scale * loaded.image_features @ loaded.text_features.T
        torch.testing.assert_close(logits, learner.logits(images, task.new_classes), rtol=1e-4, atol=1e-3)
        other = encode_split(learner, data, task.new_classes, template=["a scan of the {}.", "a dark {}."])
        expected = encode_text(clip.model, clip.tokenizer, task.new_classes, ["a scan of the {}.", "a dark {}."])
        assert torch.equal(other.zeroshot_text_features, expected)


def test_evaluation_mode_is_put_back_part_by_part():
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Sequential(torch.nn.Dropout()))
    module[1].eval()
    with evaluating(module):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module.modules()] == [True, True, False, False]


def test_what_is_no_model_is_named(clip, images):
    for model, message in [
        ("a model", "model must have encode_image, .* or be a function .*, got 'a model'"),
        (torch.nn.Linear(2, 2), "model must have encode_image, .* got a Linear that cannot take images"),
        (lambda batch: batch, r"model must have encode_image, .* got a float32 tensor of shape .* for 13 images"),
        (lambda batch: batch.mean((0, 2, 3))[None], r"model must .* shape \(1, 3\) for 13 images"),
    ]:
        with pytest.raises(ValueError, match=rf"^{message}"):
            encode_images(model, images)
    with pytest.raises(ValueError, match=r"^tokenizer must be given, got None"):
        encode_text(clip.model, None, NAMES)
    with pytest.raises(ValueError, match=r"^model must have encode_text, got a OnlyImages"):
        encode_text(type("OnlyImages", (), {"encode_image": None})(), clip.tokenizer, NAMES)
    with pytest.raises(ValueError, match=r"^model must have logit_scale, got a function"):
        scale_and_bias(lambda batch: batch)
    with pytest.raises(ValueError, match=r"^dataset must give .image, label., got images without labels"):
        encode_split(clip.model, TensorDataset(images), NAMES, clip.tokenizer)
