"""``pyfastcal extract``: image folders through a bundled CLIP, zero-shot and tuned text features."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize
from typer.testing import CliRunner

from pyfastcal.cli import app
from pyfastcal.clip.extract import class_names
from pyfastcal.io import load_features

pytest.importorskip("open_clip", reason="the extra 'clip' is not installed")
datasets = pytest.importorskip("sklearn.datasets", reason="the extra 'demo' is not installed")

NAMES = ["digit four", "digit one", "digit zero"]  # as their folders are sorted
TEMPLATE = "a photo of the {}."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwritten digits as PNG files, a folder per class."""
    from PIL import Image

    root = tmp_path_factory.mktemp("images")
    digits = datasets.load_digits()
    for name, number in (("digit_four", 4), ("digit_one", 1), ("digit_zero", 0)):
        (root / name).mkdir()
        for i, image in enumerate(digits.images[digits.target == number][:12]):
            picture = Image.fromarray((image * 255 / 16).astype("uint8"))
            picture.resize((32, 32), Image.Resampling.BICUBIC).save(root / name / f"{i:02}.png")
    return root


def extract(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["extract", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_zero_shot_features_of_a_folder(folder: Path, tmp_path: Path) -> None:
    from pyfastcal.clip import ImageFolder, load_clip

    out = tmp_path / "digits.safetensors"
    options = "--model", "pyfastcal/digits", "--template", TEMPLATE, "--batch-size", 7
    done = extract(folder, out, *options)
    assert f"Written: {out} (36 images, 3 classes, " in done.stdout and "encode images: 36 in" in done.stderr
    features = load_features(out)
    assert features.classnames == NAMES and features.labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert torch.equal(features.text_features, features.zeroshot_text_features)
    assert features.meta["model"] == "pyfastcal/digits" and features.meta["template"] == TEMPLATE

    model, preprocess, tokenizer = load_clip("pyfastcal/digits")
    images = torch.stack([image for image, _ in ImageFolder(folder, preprocess)])
    with torch.no_grad():
        expected = normalize(model.encode_image(images), dim=-1)
        texts = normalize(model.encode_text(tokenizer([TEMPLATE.format(name) for name in NAMES])), dim=-1)
        assert features.logit_scale == pytest.approx(float(model.logit_scale.exp()))
    torch.testing.assert_close(features.image_features, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.text_features, texts, atol=1e-5, rtol=1e-5)
    prediction = (features.image_features @ features.text_features.T).argmax(1)
    assert float((prediction == features.labels).float().mean()) > 0.5  # chance: 0.33


def test_tuned_text_features_from_a_coop_or_a_file(folder: Path, tmp_path: Path) -> None:
    from pyfastcal.clip import load_small
    from pyfastcal.clip.features import save_text_features
    from pyfastcal.clip.prompts import CoOp

    clip = load_small("digits")
    learner = CoOp(clip, template=TEMPLATE)
    learner.save(tmp_path / "coop.safetensors")
    names = [*reversed(NAMES), "digit nine"]  # rows are found by name, not by place
    save_text_features(tmp_path / "texts.safetensors", learner.text_features(names), names)
    for file in ("coop", "texts"):
        out = tmp_path / f"{file}-features.safetensors"
        tuned = "--text-features", tmp_path / f"{file}.safetensors"
        extract(folder, out, "--model", "pyfastcal/digits", "--template", TEMPLATE, *tuned)
        features = load_features(out)
        torch.testing.assert_close(features.text_features, learner.text_features(NAMES), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(features.text_features, features.zeroshot_text_features, atol=1e-2)
    done = CliRunner().invoke(app, ["evaluate", str(out), "--methods", "conf,cac"])
    assert done.exit_code == 0 and "CAC" in done.stdout, done.output


@pytest.mark.parametrize("published", [False, True])
def test_a_learner_that_tunes_the_images_too(folder: Path, tmp_path: Path, published: bool) -> None:
    from pyfastcal.clip import ImageFolder, load_small
    from pyfastcal.clip.prompts import MaPLe

    clip = load_small("digits")
    learner = MaPLe(clip, template=TEMPLATE, context_init="", depth=1)
    if published:
        file, named = tmp_path / "model.pth.tar-5", {"context": "ctx", "coupling.0": "proj"}
        state = {}
        for name, value in learner.state_dict().items():
            stem, _, part = name.rpartition(".") if name.startswith("coupling") else (name, "", "")
            state[f"prompt_learner.{named[stem]}{'.' if part else ''}{part}"] = value
        state["prompt_learner.token_suffix"] = torch.randn(3, 23, 64)  # no words behind the context
        torch.save({"state_dict": state, "epoch": 5}, file)
    else:
        learner.save(file := tmp_path / "maple.safetensors")
    out = tmp_path / "features.safetensors"
    extract(folder, out, "--model", "pyfastcal/digits", "--template", TEMPLATE, "--text-features", file)
    features = load_features(out)
    images = torch.stack([image for image, _ in ImageFolder(folder, clip.preprocess)])
    tolerance = dict(atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.image_features, learner.features(images), **tolerance)
    torch.testing.assert_close(features.zeroshot_image_features, learner.zeroshot_features(images), **tolerance)
    torch.testing.assert_close(features.text_features, learner.text_features(NAMES), **tolerance)
    torch.testing.assert_close(features.zeroshot_text_features, learner.zeroshot_text_features(NAMES), **tolerance)
    assert not torch.allclose(features.image_features, features.zeroshot_image_features, atol=1e-3)


def test_words_of_the_template_in_a_published_checkpoint(folder: Path, tmp_path: Path) -> None:
    """Those that the trainer left before every name, here "the", behind a context of 7 tokens for 8."""
    from pyfastcal.clip import load_small
    from pyfastcal.clip.prompts import ProGrad

    clip, template = load_small("digits"), "a photo of the digit, a photo of the {}."
    learner = ProGrad(clip, template=template)
    assert learner.init_ids()[1].tolist() == clip.tokenizer.encode("the")
    prompt = learner.prompts(NAMES).embeddings
    state = {"ctx": learner.context.detach(), "token_suffix": prompt[:, 17:].clone()}
    torch.save({"state_dict": state, "epoch": 100}, file := tmp_path / "model.pth.tar-100")
    out = tmp_path / "features.safetensors"
    extract(folder, out, "--model", "pyfastcal/digits", "--template", template, "--text-features", file)
    expected = learner.text_features(NAMES)
    torch.testing.assert_close(load_features(out).text_features, expected, atol=1e-5, rtol=1e-5)


def test_class_names_from_a_file(folder: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("vier\n\n eins \nnull\n", encoding="utf-8")
    dataset = type("Dataset", (), {"classes": ["a", "b", "c"]})()
    assert class_names(dataset, names) == ["vier", "eins", "null"]
    names.write_text("vier\neins\n", encoding="utf-8")
    done = extract(folder, tmp_path / "x", "--model", "pyfastcal/digits", "--classes", names, code=1)
    assert done.stderr == f"pyfastcal: {names}: must have 3 class names, one per line, got 2\n"


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        ("nowhere", [], "folder"),
        ("torchvision:CIFAR10", [], "torchvision:NAME:ROOT"),
        ("torchvision:NoSuchSet:.", [], "NoSuchSet"),
        (None, ["--text-features", "none.safetensors"], "none.safetensors: no such file"),
        (None, ["--template", "no place"], "template must be a text with one {} for the class name, got 'no place'"),
        (None, ["--template", "a {}", "--template", "{} and {}"], "template must be a text with one {}"),
        (None, ["--template", ""], "template must be a text with one {}"),
        (None, ["--device", "hpu"], "device must be one that can be used here, got 'hpu'"),
        (None, ["--device", "cuda:99"], "device must be one of the "),
        (None, ["--device", "abacus"], "device must be one that torch knows"),
        (None, ["--model", "NoSuchModel"], "NoSuchModel"),
    ],
)
def test_errors_are_one_line_and_leave_no_file(
    folder: Path, tmp_path: Path, images: str | None, options: list[str], words: str
) -> None:
    out = tmp_path / "out.safetensors"
    done = extract(images or folder, out, "--model", "pyfastcal/digits", *options, code=1)
    assert words in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""
    assert list(tmp_path.iterdir()) == []


BROKEN = {
    "none.png": "cannot identify image file",
    "truncated.png": "truncated",
    "bomb.png": "100,000,000 pixels, more than PIL.Image.MAX_IMAGE_PIXELS, 89,478,485",
    "larger.png": "exceeds limit",
    "strip.png": "sides of 1 and 5,000 pixels, more than 1000 to 1",
    "dangling.png": "no such file",
}


@pytest.fixture
def broken(folder: Path) -> Iterator[list[Path]]:
    """An image that cannot be read of each kind, beside good ones."""
    from PIL import Image

    paths = [folder / "digit_zero" / name for name in BROKEN]
    none, truncated, bomb, larger, strip, dangling = paths
    none.write_bytes(b"not a picture")
    truncated.write_bytes((folder / "digit_zero" / "00.png").read_bytes()[:200])
    Image.new("1", (10_000, 10_000)).save(bomb)
    Image.new("1", (20_000, 20_000)).save(larger)
    Image.new("L", (5000, 1)).save(strip)
    dangling.symlink_to("nowhere")
    yield paths
    for path in paths:
        path.unlink()


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_cannot_be_read_are_named_or_left_out(
    folder: Path, broken: list[Path], tmp_path: Path, workers: int
) -> None:
    options = "--model", "pyfastcal/digits", "--workers", workers, "--batch-size", 5
    done = extract(folder, tmp_path / "out", *options, code=1)
    first = min(broken)
    assert done.stderr.startswith(f"pyfastcal: {first}: not an image that can be read ({BROKEN[first.name]}")
    assert done.stderr.count("\n") == 1 and list(tmp_path.iterdir()) == []
    done = extract(folder, tmp_path / "out", *options, "--skip-bad")
    assert f"Without {len(broken)} images that could not be read:" in done.stderr
    features = load_features(tmp_path / "out")
    assert features.labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert len(features.meta["skipped"]) == len(broken) and "encode images: 42 in" in done.stderr
    for path, reason in zip(sorted(broken), features.meta["skipped"], strict=True):
        assert reason.startswith(f"{path}: ") and BROKEN[path.name] in reason and reason in done.stderr


def test_where_no_image_can_be_read(tmp_path: Path) -> None:
    bad = tmp_path / "photos" / "digit_one" / "a.png"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"?")
    done = extract(tmp_path / "photos", tmp_path / "out", "--model", "pyfastcal/digits", "--skip-bad", code=1)
    assert f"images must not be empty, got none that can be read: {bad}: not an image" in done.stderr


def test_images_of_torchvision_are_told_by_their_place(folder: Path, broken: list[Path], tmp_path: Path) -> None:
    """Its own reader of folders knows no limit."""
    for path in broken:
        if path.name not in ("larger.png", "truncated.png"):
            path.unlink()
            path.write_bytes((folder / "digit_zero" / "00.png").read_bytes())
    arguments = f"torchvision:ImageFolder:{folder}", tmp_path / "out", "--model", "pyfastcal/digits"
    done = extract(*arguments, "--skip-bad")
    assert "Without 2 images that could not be read:" in done.stderr
    assert done.stderr.count("of the dataset: not an image that can be read") == 2


def test_one_image_of_one_class(folder: Path, tmp_path: Path) -> None:
    one = tmp_path / "photos" / "digit_one" / "a.png"
    one.parent.mkdir(parents=True)
    one.write_bytes((folder / "digit_one" / "00.png").read_bytes())
    done = extract(tmp_path / "photos", tmp_path / "out", "--model", "pyfastcal/digits")
    assert "(1 image, 1 class, 64 dimensions)" in done.stdout


def test_class_names_that_are_no_text(folder: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_bytes(b"vi\xffer")
    done = extract(folder, tmp_path / "x", "--model", "pyfastcal/digits", "--classes", names, code=1)
    assert f"{names}: must be UTF-8 text, one class name per line" in done.stderr
