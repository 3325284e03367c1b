import pytest
import torch

from pyfastcal.clip.tokenizer import WordTokenizer

WORDS = [".", "a", "circle", "of", "photo", "red"]


def test_ids_are_start_words_end_padding():
    ids = WordTokenizer(WORDS, 8)(["red", "a red circle."])
    assert ids.dtype == torch.int64 and ids.shape == (2, 8)
    assert ids.tolist() == [[1, 7, 8, 0, 0, 0, 0, 0], [1, 3, 7, 4, 2, 8, 0, 0]]


def test_the_end_token_is_the_highest_id_of_every_row():
    tokenizer = WordTokenizer(WORDS, 10)
    ids = tokenizer(["red circle.", "a photo of a red circle.", ""])
    assert ids.argmax(1).tolist() == [4, 8, 1]
    assert (ids.amax(1) == tokenizer.eot_token_id).all() and tokenizer.vocab_size == tokenizer.eot_token_id + 1


def test_one_text_and_another_context_length():
    tokenizer = WordTokenizer(WORDS, 8)
    assert tokenizer("red").shape == (1, 8)
    assert tokenizer("red", context_length=3).tolist() == [[1, 7, 8]]
    assert tokenizer.decode(tokenizer("A  red\nCircle.")[0]) == "a red circle ."


def test_bad_texts_are_named():
    tokenizer = WordTokenizer(WORDS, 6)
    with pytest.raises(ValueError, match=r"^texts: 'a blue photo' has 'blue', which the vocabulary of 6 words lacks"):
        tokenizer(["red", "a blue photo"])
    with pytest.raises(ValueError, match=r"^texts: 'a photo of a red circle' has 8 tokens, the model takes at most 6"):
        tokenizer("a photo of a red circle")
    with pytest.raises(ValueError, match=r"^words must not repeat"):
        WordTokenizer(["red", "red"], 6)
