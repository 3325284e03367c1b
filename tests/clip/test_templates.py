"""Contexts that start from the words of a template, split as the published trainers split them: on spaces, though the
tokenizer makes a token of a comma too. Over a small CLIP with the tokenizer of OpenAI's."""

import pytest
import torch
import torch.nn.functional as F

from pyfastcal.clip import import_open_clip, prompts
from pyfastcal.clip.prompts import CoCoOp, CoOp, KgCoOp, MaPLe, ProGrad, PromptSRC, load_published

TEMPLATES = {
    "OxfordPets": "a type of pet, a photo of a {}.",
    "OxfordFlowers": "a type of flower, a photo of a {}.",
    "FGVCAircraft": "a type of aircraft, a photo of a {}.",
    "DescribableTextures": "a texture of {}.",
    "EuroSAT": "a centered satellite photo of {}.",
    "StanfordCars": "a photo of a {}.",
    "Food101": "a type of food, a photo of {}.",
    "SUN397": "a photo of a {}.",
    "Caltech101": "a photo of a {}.",
    "UCF101": "a photo of a person doing {}.",
    "ImageNet": "a photo of a {}.",
}
FIXED = {"OxfordPets": "a", "OxfordFlowers": "a", "FGVCAircraft": "a", "Food101": "of"}  # words left before the names
TUNED_ON, NAMES = ["boxer", "hot air balloon", "a380"], ["great white shark", "dog", "crème brûlée"]
WIDTH = 32
every_template = pytest.mark.parametrize("dataset", TEMPLATES)


@pytest.fixture(scope="module")
def clip():
    open_clip = import_open_clip()
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=24,
        vision_cfg={"image_size": 32, "patch_size": 16, "width": 48, "layers": 2, "head_width": 24},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 2},
    )
    return model.eval(), open_clip.get_tokenizer("ViT-B-32")


class Trainer:
    """What a published trainer makes of a template: the text is tokenized as a whole, and the tokens behind the start
    are replaced by the context."""

    def __init__(self, clip, template, names, n_context=None):
        self.model, tokenizer = clip
        words = template.replace(" {}.", "")
        count = len(words.split(" "))
        n_context = count if n_context is None else n_context  # CoOp's own does not pad
        ids = tokenizer([f"{'X ' * (n_context - count)}{words} {name}." for name in names])
        self.ends = ids.argmax(1)
        with torch.no_grad():
            embedded = self.model.token_embedding(ids)
            self.prefix, self.suffix = embedded[:, :1], embedded[:, 1 + n_context :]
            self.start = torch.zeros(n_context, embedded.shape[2])
            self.start[n_context - count :] = self.model.token_embedding(tokenizer([words]))[0, 1 : 1 + count]

    def features(self, context):
        x = torch.cat([self.prefix, context.expand(len(self.prefix), -1, -1), self.suffix], dim=1)
        x = self.model.transformer(x + self.model.positional_embedding, attn_mask=self.model.attn_mask)
        x = self.model.ln_final(x)[torch.arange(len(x)), self.ends] @ self.model.text_projection
        return F.normalize(x, dim=-1)

    def checkpoint(self, path, context):
        state = {"ctx": context, "token_prefix": self.prefix, "token_suffix": self.suffix}
        torch.save({"state_dict": {name: value.half() for name, value in state.items()}, "epoch": 100}, path)
        return path


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@every_template
def test_prograd_starts_and_places_names_as_published(clip, dataset):
    template, context = TEMPLATES[dataset], 0.1 * normal(16, WIDTH)
    learner, trainer = ProGrad(*clip, template), Trainer(clip, template, NAMES, 16)
    assert torch.equal(learner.context.detach(), trainer.start)
    assert clip[1].decode(learner.init_ids()[1].tolist()).strip() == FIXED.get(dataset, "")
    learner.context.data.copy_(context)
    torch.testing.assert_close(learner.text_features(NAMES), trainer.features(context).detach(), rtol=1e-4, atol=1e-5)


@every_template
def test_prograd_trains_as_published(clip, dataset):
    """Three steps of the cross-entropy's gradient, without what of it points against zero-shot CLIP's."""
    template, epochs, rate = TEMPLATES[dataset], 3, 0.1
    learner, trainer = ProGrad(*clip, template, epochs=epochs, lr=rate), Trainer(clip, template, TUNED_ON, 16)
    images, labels = F.normalize(normal(6, 24), dim=-1), torch.tensor([0, 1, 2, 0, 1, 2])
    learner.fit(images, labels, TUNED_ON)
    context = torch.nn.Parameter(trainer.start.clone())
    optimizer = torch.optim.SGD([context], rate, momentum=0.9, weight_decay=5e-4)
    scale = clip[0].logit_scale.exp().detach()
    with torch.no_grad():
        texts = clip[0].encode_text(clip[1]([template.format(name) for name in TUNED_ON]))
        teacher = (scale * images @ F.normalize(texts, dim=-1).T).softmax(1)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = learner.learning_rate(epoch)
        logits = scale * images @ trainer.features(context).T
        (general,) = torch.autograd.grad(-(teacher * logits.log_softmax(1)).sum(1).mean(), context, retain_graph=True)
        (domain,) = torch.autograd.grad(F.cross_entropy(logits, labels), context)
        along = (domain * general).sum() / general.norm()
        context.grad = domain - along * general / general.norm() if along < 0 else domain
        optimizer.step()
    assert (context - trainer.start).abs().max() > 1e-3
    torch.testing.assert_close(learner.context, context, rtol=1e-3, atol=1e-5)


@every_template
@pytest.mark.parametrize("kind", [None, ProGrad])
def test_published_checkpoints_keep_the_words_before_the_names(clip, tmp_path, dataset, kind):
    template, context = TEMPLATES[dataset], (0.1 * normal(16, WIDTH)).half().float()
    path = Trainer(clip, template, TUNED_ON, 16).checkpoint(tmp_path / "model.pth.tar-100", context)
    expected = Trainer(clip, template, NAMES, 16).features(context).detach()
    learner = load_published(path, *clip, template, learner=kind)
    torch.testing.assert_close(learner.text_features(NAMES), expected, rtol=1e-4, atol=1e-5)
    learner.save(tmp_path / "own.safetensors")
    again = prompts.load(tmp_path / "own.safetensors", *clip)
    assert torch.equal(again.text_features(NAMES), learner.text_features(NAMES))


@every_template
@pytest.mark.parametrize("kind", [CoOp, CoCoOp, KgCoOp])
def test_the_others_take_as_many_tokens_as_there_are_words(clip, tmp_path, dataset, kind):
    template = TEMPLATES[dataset]
    words = template.replace(" {}.", "")
    learner, trainer = kind(*clip, template, context_init=words), Trainer(clip, template, NAMES)
    assert learner.n_context == len(words.split(" ")) and torch.equal(learner.context.detach(), trainer.start)
    if kind is CoCoOp:  # its contexts are shifted
        torch.nn.init.zeros_(learner.meta_net.linear2.weight), torch.nn.init.zeros_(learner.meta_net.linear2.bias)
    expected = trainer.features(trainer.start).detach()
    torch.testing.assert_close(learner.text_features(NAMES), expected, rtol=1e-4, atol=1e-5)
    path = Trainer(clip, template, TUNED_ON).checkpoint(tmp_path / "model.pth.tar-100", trainer.start)
    if kind is not CoCoOp:
        loaded = load_published(path, *clip, template, learner=kind)
        torch.testing.assert_close(loaded.text_features(NAMES), expected, rtol=1e-2, atol=1e-3)  # half precision


@pytest.mark.parametrize("kind", [MaPLe, PromptSRC])
def test_deep_prompts_take_as_many_tokens_as_they_are_told(clip, kind):
    learner = kind(*clip, context_init="a type of pet, a photo of a", n_context=3)
    learned, fixed = (clip[1].decode(ids.tolist()).strip() for ids in learner.init_ids())
    assert (learned, fixed) == ("a type of", "pet , a photo of a")


def test_how_many_tokens_a_context_has(clip):
    assert CoOp(*clip).n_context == 16 and CoOp(*clip, context_init="a photo of a").n_context == 4
    assert CoOp(*clip, context_init="a_photo_of_a").context_init == "a photo of a"  # as trainers' settings write it
    padded = CoOp(*clip, context_init="a photo of a", n_context=6)
    assert padded.n_context == 6 and not padded.context[:2].any() and padded.context[2:].any(1).all()
    assert CoOp(*clip, context_init=" ").n_context == 16 and CoCoOp(*clip).n_context == 4
    assert ProGrad(*clip, context_init="a photo of a").n_context == 16


def test_a_template_that_is_missing_is_told(clip, tmp_path, recwarn):
    """Food101's "of" is in no other template: it cannot be told from the names' first word."""
    context = 0.1 * normal(16, WIDTH)
    path = Trainer(clip, TEMPLATES["Food101"], TUNED_ON, 16).checkpoint(tmp_path / "model.pth.tar-100", context)
    load_published(path, *clip, TEMPLATES["Food101"])
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"model.pth.tar-100: the names of all 3 classes .* give that as template$"):
        load_published(path, *clip)
    one = Trainer(clip, TEMPLATES["Food101"], TUNED_ON[:1], 16).checkpoint(tmp_path / "model.pth.tar-1", context)
    load_published(one, *clip)
    assert not recwarn.list


@pytest.mark.parametrize("shape", [(3,), (3, 60, 7), (0, 60, WIDTH), (3, 0, WIDTH)])
def test_suffixes_of_another_shape(clip, tmp_path, shape):
    path = tmp_path / "model.pth.tar-100"
    torch.save({"state_dict": {"ctx": normal(16, WIDTH), "token_suffix": torch.zeros(shape)}}, path)
    if len(shape) == 3 and shape[2] == WIDTH:
        assert load_published(path, *clip, TEMPLATES["OxfordPets"]).context_init == ""
        return
    with pytest.raises(
        ValueError, match=r"model.pth.tar-100: token_suffix must be embeddings \(C, L, 32\), got a float"
    ):
        load_published(path, *clip)


@pytest.mark.parametrize("name", prompts.LEARNERS)
def test_underscores_in_names_are_spaces(clip, name):
    options = {"n_prompts": 4, "n_context": 4} if name == "ProDA" else {}
    learner = prompts.LEARNERS[name](*clip, **options)
    written, said = ["great_white_shark", "dog"], ["great white shark", "dog"]
    for features in (learner.text_features, learner.zeroshot_text_features, lambda names: learner.bind(names).fixed):
        got, expected = features(written), features(said)
        assert got is expected or torch.equal(got, expected)
    assert learner.prompts(written).classnames == written
    with pytest.raises(ValueError, match=r"^classnames must be a list of names, got \['_'\]"):
        learner.text_features(["_"])


def test_underscores_in_names_of_features(clip, tmp_path):
    from pyfastcal.clip import encode_split, encode_text
    from pyfastcal.clip.features import load_text_features, save_text_features

    written, said = ["great_white_shark", "dog"], ["great white shark", "dog"]
    texts = encode_text(*clip, written)
    assert torch.equal(texts, encode_text(*clip, said))
    learner = CoOp(*clip, n_context=2)
    data = torch.utils.data.TensorDataset(normal(2, 3, 32, 32), torch.tensor([0, 1]))
    split = encode_split(learner, data, written)
    assert split.classnames == written and torch.equal(split.zeroshot_text_features, texts)
    assert torch.equal(split.text_features, learner.text_features(said))
    save_text_features(tmp_path / "texts.safetensors", texts, written)
    for names in (written, said):
        assert torch.equal(load_text_features(tmp_path / "texts.safetensors", names)[0], texts)
    save_text_features(tmp_path / "both.safetensors", texts, ["hot_dog", "hot dog"])  # the name as it is goes first
    assert torch.equal(load_text_features(tmp_path / "both.safetensors", ["hot_dog"])[0], texts[:1])
    assert torch.equal(load_text_features(tmp_path / "both.safetensors", ["hot dog"])[0], texts[1:])
