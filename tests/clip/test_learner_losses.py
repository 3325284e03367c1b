"""Each learner's features and loss against a plain restatement of its paper's equations."""

import math

import pytest
import torch
import torch.nn.functional as F

from pyfastcal.clip.prompts import LEARNERS, CoCoOp, KgCoOp, MaPLe, ProDA, ProGrad, PromptSRC
from pyfastcal.clip.prompts.prograd import aligned

from . import restated

NAMES = ["digit one", "letter q", "digit two"]
LABELS = torch.tensor([2, 0, 1, 2])
TAU = 100.0


@pytest.fixture(scope="module")
def images(task):
    return task.base_test.images[[0, 150, 300, 450]]


@pytest.fixture(scope="module")
def features(clip, images):
    return torch.stack([restated.image(clip.model, picture) for picture in images]).detach()


def shaken(learner, seed=0):
    """The learner with parameters far from their start, where all terms matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return learner


def cross_entropy(logits):
    return -torch.stack(
        [row[y] - torch.log(row.exp().sum()) for row, y in zip(logits.double(), LABELS, strict=True)]
    ).mean()


def check(loss, expected, rtol=1e-4):
    torch.testing.assert_close(loss.double(), expected.double(), rtol=rtol, atol=1e-4)


def test_the_restated_towers_are_open_clips(clip, images, features):
    torch.testing.assert_close(features, F.normalize(clip.model.encode_image(images), dim=-1).detach())
    words = ["a", "photo", "of", "the"]
    texts = torch.stack([restated.prompted(clip, name, torch.zeros(0, 64), words) for name in NAMES])
    torch.testing.assert_close(texts, restated.template_features(clip, NAMES, "a photo of the {}."))


def test_kgcoop(clip, features):
    learner = shaken(KgCoOp(clip, template="a photo of the {}."))
    w = torch.stack([restated.prompted(clip, name, learner.context) for name in NAMES])
    w_clip = restated.template_features(clip, NAMES, "a photo of the {}.")
    knowledge = sum((a - b).square().sum() / 2 for a, b in zip(w, w_clip, strict=True)) / 3  # 1 - cos of unit vectors
    expected = cross_entropy(TAU * features @ w.T) + 8.0 * knowledge
    check(learner.loss(features, LABELS, learner.bind(NAMES)), expected)
    assert knowledge > 0.01


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_prograd(clip, features, temperature):
    learner = shaken(ProGrad(clip, template="a photo of the {}.", lambda_=0.8, temperature=temperature))
    w = torch.stack([restated.prompted(clip, name, learner.context) for name in NAMES])
    logits = TAU * features @ w.T
    target = (TAU * features @ restated.template_features(clip, NAMES, "a photo of the {}.").T / temperature).softmax(1)
    divergence = (target * (target.log() - (logits / temperature).log_softmax(1))).sum(1).mean() * temperature**2
    (g_d,) = torch.autograd.grad(cross_entropy(logits), learner.context, retain_graph=True)
    (g_g,) = torch.autograd.grad(divergence, learner.context)
    loss, (gradient,) = learner.gradients(features, LABELS, learner.bind(NAMES))
    cosine = F.cosine_similarity(g_d.flatten(), g_g.flatten(), dim=0)
    expected = g_d if cosine >= 0 else g_d - 0.8 * (g_d.norm() * cosine) * g_g / g_g.norm()
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)
    assert loss == pytest.approx(cross_entropy(logits).item(), rel=1e-4)


def test_prograds_projection():
    g_d, g_g = torch.tensor([[3.0, -1.0]]), torch.tensor([[0.0, 2.0]])
    assert aligned(g_d, g_g, 1.0).tolist() == [[3.0, 0.0]]  # nothing left against G_g
    assert aligned(g_d, g_g, 0.5).tolist() == [[3.0, -0.5]]
    assert aligned(g_d, -g_g, 1.0) is g_d and aligned(g_d, torch.zeros(1, 2), 1.0) is g_d


def test_cocoop(clip, features):
    learner = shaken(CoCoOp(clip))
    net = learner.meta_net
    rows = []
    for x in features:
        hidden = (net.linear1.weight @ x + net.linear1.bias).clamp(min=0)
        context = learner.context + net.linear2.weight @ hidden + net.linear2.bias
        rows.append(TAU * torch.stack([x @ restated.prompted(clip, name, context) for name in NAMES]))
    logits = torch.stack(rows)
    check(learner.loss(features, LABELS, learner.bind(NAMES)), cross_entropy(logits))
    torch.testing.assert_close(learner.logits(features, NAMES), logits.detach(), rtol=1e-4, atol=1e-3)
    mean = learner.condition(features).text_features(NAMES)
    hidden = (net.linear1.weight @ features.mean(0) + net.linear1.bias).clamp(min=0)
    context = learner.context + net.linear2.weight @ hidden + net.linear2.bias
    expected = torch.stack([restated.prompted(clip, name, context) for name in NAMES])
    torch.testing.assert_close(mean, expected.detach(), rtol=1e-4, atol=1e-5)


def test_proda(clip, features):
    learner = shaken(ProDA(clip, n_prompts=8, prompt_batch=4, n_context=5))
    bound = learner.bind(NAMES)
    places = [0, 0, 2, 2, 5, 5, 5, 5]  # tokens of the context before the name
    w = torch.stack(
        [
            torch.stack([restated.prompted(clip, name, context, before=place) for name in NAMES])
            for context, place in zip(learner.context, places, strict=True)
        ]
    )  # (8, 3, 64)
    seen = [learner.next_prompts() for _ in range(2)]
    assert sorted(seen[0] + seen[1]) == list(range(8))
    learner._step = 0
    chosen = w[seen[0]].double()
    mu, tau, f = chosen.mean(0), TAU, features.double()
    deviation = chosen - mu
    # Sigma of dimension d, between classes: (C, C)
    sigma = [deviation[:, :, d].T @ deviation[:, :, d] / (4 + 1) for d in range(64)]
    upper = []
    for z, y in zip(f, LABELS, strict=True):
        a = sum(z[d] ** 2 * (s[y, y] + s.diagonal() - 2 * s[y]) for d, s in enumerate(sigma))
        exponents = tau * mu @ z + tau**2 / 2 * a
        upper.append(torch.log(exponents.exp().sum()) - exponents[y])
    start, stop, end = (clip.model.token_embedding(clip.tokenizer("."))[0, i][None] for i in range(3))
    bare = [restated.text(clip.model, torch.cat([start, c, stop, end]), 7) for c in learner.context]
    cosines = [abs(a @ b) for i, a in enumerate(bare) for j, b in enumerate(bare) if i != j]
    orthogonality = sum(cosines) / len(cosines)
    check(learner.orthogonality(), orthogonality)
    expected = torch.stack(upper).mean() + 0.1 * orthogonality
    check(learner.loss(features, LABELS, bound), expected)
    mean = w.mean(0)
    torch.testing.assert_close(
        learner.logits(features, NAMES), (TAU * features @ mean.T).detach(), rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(learner.text_features(NAMES), F.normalize(mean, dim=1).detach(), rtol=1e-4, atol=1e-5)


def test_maple(clip, images):
    learner = shaken(MaPLe(clip))
    assert len(learner.deep_context) == 1  # the text tower has two layers
    p = [learner.context, *learner.deep_context]
    vision = [x @ f.weight.T + f.bias for x, f in zip(p, learner.coupling, strict=True)]
    w = [restated.prompted(clip, name, p[0], ["of", "a"], before=2, deep=p[1:]) for name in NAMES]
    f = [restated.image(clip.model, picture, vision[0], vision[1:]) for picture in images]
    w, f = torch.stack(w), torch.stack(f)
    check(learner.loss(learner.inputs(images), LABELS, learner.bind(NAMES)), cross_entropy(TAU * f @ w.T))
    torch.testing.assert_close(learner.features(images), f.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(learner.text_features(NAMES), w.detach(), rtol=1e-4, atol=1e-5)
    plain = learner.zeroshot_features(images)
    assert (learner.features(images) - plain).norm(dim=1).min() > 0.01


def test_promptsrc(clip, images, features):
    templates = ["a photo of the {}.", "a dark photo of a {}."]
    learner = shaken(PromptSRC(clip, templates=templates, n_context_vision=3))
    assert (len(learner.deep_context), len(learner.deep_vision_context)) == (1, 2)
    g = [restated.prompted(clip, name, learner.context, deep=list(learner.deep_context)) for name in NAMES]
    deep = list(learner.deep_vision_context)
    f = [restated.image(clip.model, picture, learner.vision_context, deep) for picture in images]
    g, f = torch.stack(g), torch.stack(f)
    with torch.no_grad():
        raw = [clip.model.encode_text(clip.tokenizer([t.format(name) for name in NAMES])) for t in templates]
    frozen = F.normalize((raw[0] + raw[1]) / 2, dim=-1)
    logits, zeroshot = TAU * f @ g.T, TAU * features @ frozen.T
    p = zeroshot.softmax(1)
    divergence = (p * (p.log() - logits.log_softmax(1))).sum() / logits.numel()
    constraint = 10 * (f - features).abs().mean() + 25 * (g - frozen).abs().mean()
    expected = cross_entropy(logits) + constraint + divergence
    check(learner.loss(learner.inputs(images), LABELS, learner.bind(NAMES)), expected)


def test_promptsrc_averages_its_prompts_over_the_epochs(clip, task):
    weights = PromptSRC(clip, epochs=20).epoch_weights()
    gauss = torch.tensor([math.exp(-((t - 15) ** 2) / 2) for t in range(1, 21)], dtype=torch.float64)
    torch.testing.assert_close(weights, gauss / gauss.sum())
    seen = []

    class Watched(PromptSRC):
        def after_epoch(self, epoch):
            seen.append(self.vision_context.detach().clone())
            super().after_epoch(epoch)

    learner = Watched(clip, epochs=3, mu=2, sigma=0.7).fit(
        task.train.images[::8], task.train.labels[::8], task.base_classes
    )
    expected = sum(w * x for w, x in zip(learner.epoch_weights().float(), seen, strict=True))
    torch.testing.assert_close(learner.vision_context.detach(), expected)
    assert not torch.allclose(learner.vision_context, seen[-1], atol=1e-7)


def test_promptsrcs_templates_are_the_published_ones(clip):
    said = PromptSRC(clip).text_templates()
    photos = ("a low resolution photo of the", "a low resolution photo of a", "a dark photo of the")
    photos += ("a blurry photo of the", "a blurry photo of a", "a photo of the", "a photo of one", "a photo of a")
    assert sorted(said) == sorted(f"{words} {{}}." for words in photos)
    asked = []

    def any_text(texts):
        asked.extend(texts)
        return torch.ones(len(texts), 26, dtype=torch.int64)

    learner = PromptSRC(clip)
    learner.tokenizer = any_text
    assert len(learner.text_templates()) == 60 and "itap of the ." in asked


def test_published_values(clip):
    told = {
        "CoOp": dict(n_context=16, context_init="", epochs=200, batch_size=32, lr=0.002),
        "CoCoOp": dict(n_context=4, context_init="a photo of a", epochs=10, batch_size=1, lr=0.002),
        "ProDA": dict(n_context=16, n_prompts=32, prompt_batch=4, lambda_=0.1, epochs=100, batch_size=4, lr=0.001),
        "KgCoOp": dict(n_context=4, context_init="a photo of a", lambda_=8, epochs=100, batch_size=128, lr=0.002),
        "MaPLe": dict(n_context=2, context_init="a photo of a", depth=9, epochs=5, batch_size=4, lr=0.0035),
        "ProGrad": dict(n_context=16, lambda_=1, temperature=1, epochs=100, batch_size=32, lr=0.002),
        "PromptSRC": dict(n_context=4, n_context_vision=4, depth_text=9, depth_vision=9, lambda_1=10, lambda_2=25)
        | dict(mu=15, sigma=1, epochs=20, batch_size=4, lr=0.0025, context_init="a photo of a"),
    }
    assert told.keys() == LEARNERS.keys()
    for name, values in told.items():
        learner = LEARNERS[name](clip)
        assert {key: getattr(learner, key) for key in values} == values
        assert (learner.momentum, learner.weight_decay, learner.warm_up_lr) == (0.9, 5e-4, 1e-5)


def test_where_contexts_start(clip):
    def words(text):
        return clip.model.token_embedding(torch.tensor(clip.tokenizer.encode(text)))

    assert torch.equal(KgCoOp(clip).context, words("a photo of a"))
    assert torch.equal(MaPLe(clip).context, words("a photo"))
    context = ProGrad(clip, template="a photo of the {}.").context
    assert torch.equal(context[12:], words("a photo of the")) and not context[:12].any()
    for start in (ProDA(clip).context, MaPLe(clip).deep_context[0], PromptSRC(clip).vision_context):
        assert 0.015 < start.std() < 0.025
    bound = 64**-0.5
    meta_net = CoCoOp(clip).meta_net
    assert meta_net.linear1.weight.shape == (4, 64) and 0.9 * bound < meta_net.linear1.weight.abs().max() <= bound
