"""Small transformers models with random weights, for images of 32 x 32 and texts of 16 tokens: no download."""

import pytest
import torch

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

WORDS = ["[PAD]", "[UNK]", *"a photo of the digit letter one two q .".split(), "[EOS]"]  # noqa: SIM905
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = SIZES | {"vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": len(WORDS) - 1}
VISION = SIZES | {"image_size": 32, "patch_size": 8}


def clip_model(seed=0):
    torch.manual_seed(seed)
    text, vision = TEXT | {"projection_dim": 24}, VISION | {"projection_dim": 24}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    return transformers.CLIPModel(config).eval()


def siglip_model(seed=0):
    torch.manual_seed(seed)
    model = transformers.SiglipModel(transformers.SiglipConfig(text_config=TEXT, vision_config=VISION)).eval()
    with torch.no_grad():  # as the published ones have them, near enough
        model.logit_scale.fill_(2.3)
        model.logit_bias.fill_(-12.0)
    return model


def vision_model(model):
    """The vision half of a CLIPModel on its own."""
    half = transformers.CLIPVisionModelWithProjection(model.config.vision_config).eval()
    half.load_state_dict({key: x for key, x in model.state_dict().items() if key in half.state_dict()})
    return half


def tokenizer(mask=True):
    """``mask``: whether it gives an attention mask, as CLIP's does and SigLIP's, trained without one, does not."""
    words = tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    backend = tokenizers.Tokenizer(words)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Whitespace(), tokenizers.pre_tokenizers.Punctuation()]
    )
    end = ("[EOS]", len(WORDS) - 1)
    backend.post_processor = tokenizers.processors.TemplateProcessing(single="$A [EOS]", special_tokens=[end])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[EOS]"}
    inputs = ["input_ids", "attention_mask"] if mask else ["input_ids"]
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=inputs, **special)


def image_processor():
    size = {"height": 32, "width": 32}
    return transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
