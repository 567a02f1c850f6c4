"""Ids: equal to the reference tokenizer's, whatever the text; and every way in which a folder can be wrong."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from tokenizers import AddedToken, ByteLevelBPETokenizer
from transformers import RobertaTokenizer

from bridgetower.checkpoints.tokenizer import SPECIAL_TOKENS, Tokenizer, digest_of_tokenizer
from bridgetower.errors import ModelError, UsageError

CORPUS = [
    "two cats on a couch", "a cat looking out of the window", "a dog in a car", "an image of two cats chilling",
    "three umbrellas, left of a house.", "It's snowing; 12 birds above the sea!",
]  # fmt: skip

MAX_TOKENS = 512

TEXTS = [
    "two cats on a couch", "Two Cats", " leading space", "trailing space  ", "double  space", "tab\tand\nnew line",
    "naïve café", "一只猫在沙发上", "кошка на диване", "قطة على الأريكة", "🐱🐱 on a 🛋️ with 👩‍👩‍👧",
    "e\u0301 combining",
    "nul \x00 bell \x07 escape \x1b[31m delete \x7f", "\u200b", "\ufeffbyte order mark", "¡!@#$%^&*()",
    "a <mask> looking", "<mask>", "<mask> cat", "a <mask>", "a <mask>.", "a<mask>b", "<mask><mask>", "<mask> <mask>",
    "a  <mask>  b", "a\n<mask>", "a <mask>, a <mask> and a <mask>", "<MASK>", "< mask>",
    "<s> a </s>", "a <pad> b", "<unk>", "x" * 400,
]  # fmt: skip


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small `vocab.json` and `merges.txt`."""
    folder = tmp_path_factory.mktemp("learned")
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        CORPUS * 3, vocab_size=400, min_frequency=1, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    bpe.save_model(str(folder))
    return folder


@pytest.fixture(scope="session")
def reference(learned: Path) -> Any:
    """`<mask>` as RoBERTa was trained with it and as the published files have it."""
    return RobertaTokenizer(
        vocab=str(learned / "vocab.json"),
        merges=str(learned / "merges.txt"),
        mask_token=AddedToken("<mask>", lstrip=True, normalized=False),
    )


@pytest.fixture(scope="session", params=["vocab and merges", "tokenizer.json"])
def folder(request: pytest.FixtureRequest, learned: Path, reference: Any, tmp_path_factory: Any) -> Path:
    if request.param == "vocab and merges":
        return learned
    whole: Path = tmp_path_factory.mktemp("whole")
    reference.save_pretrained(whole)
    assert not (whole / "vocab.json").exists()
    return whole


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(folder, MAX_TOKENS)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_the_reference(text: str, tokenizer: Tokenizer, reference: Any) -> None:
    encoding = tokenizer.encode(text)
    assert list(encoding.ids) == reference(text)["input_ids"]
    assert not encoding.truncated
    assert list(encoding.masks) == [i for i, token in enumerate(encoding.ids) if token == reference.mask_token_id]


def test_a_saved_tokenizer_is_taken_at_its_word(learned: Path, tmp_path: Path) -> None:
    """One whose `<mask>` keeps the space before it, as some programs save it, gives what it gave there."""
    saved = RobertaTokenizer.from_pretrained(learned)
    assert not saved._tokenizer.get_added_tokens_decoder()[saved.mask_token_id].lstrip
    saved.save_pretrained(tmp_path)
    ids = Tokenizer.from_folder(tmp_path, MAX_TOKENS).encode("a <mask> looking").ids
    assert list(ids) == saved("a <mask> looking")["input_ids"]
    assert ids != Tokenizer.from_folder(learned, MAX_TOKENS).encode("a <mask> looking").ids


@pytest.mark.parametrize(
    ("text", "count"), [("a cat", 0), ("a <mask>", 1), ("<mask> <mask> on a <mask>", 3), ("a < mask >", 0)]
)
def test_masks_are_found_and_counted(text: str, count: int, tokenizer: Tokenizer) -> None:
    encoding = tokenizer.encode(text)
    assert len(encoding.masks) == count
    assert all(encoding.ids[position] == tokenizer.mask_id for position in encoding.masks)


def test_the_space_before_a_mask_belongs_to_it(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a <mask>.").ids == tokenizer.encode("a<mask>.").ids
    assert len(tokenizer.encode("a <mask>").ids) == 4


@pytest.mark.parametrize("text", ["", " ", "\n\t \u3000"])
def test_an_empty_text_is_refused(text: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="empty"):
        tokenizer.encode(text)
    with pytest.raises(UsageError, match="empty"):
        tokenizer.encode_batch(["a cat", text])


def test_bytes_that_are_no_text_are_read_as_the_replacement_character(tokenizer: Tokenizer) -> None:
    from_command_line = b"a \xff cat".decode("utf-8", "surrogateescape")
    assert tokenizer.encode(from_command_line) == tokenizer.encode("a \ufffd cat")
    assert tokenizer.encode("\ud83d") == tokenizer.encode("\ufffd")


def test_a_text_that_does_not_fit_is_cut_at_its_end(folder: Path, reference: Any) -> None:
    tokenizer = Tokenizer.from_folder(folder, 10)
    text = "a cat looking out of the window, a cat looking out of the window <mask>"
    encoding = tokenizer.encode(text)
    assert encoding.truncated
    assert list(encoding.ids) == reference(text, truncation=True, max_length=10)["input_ids"]
    assert len(encoding.ids) == 10
    assert encoding.ids[-1] == tokenizer.end_id
    assert encoding.masks == ()  # it stood in what was cut off

    whole = tokenizer.encode("a cat a cat a cat a cat")  # 8 words: exactly 10 with <s> and </s>
    assert len(whole.ids) == 10
    assert not whole.truncated


def test_a_shortened_text_is_read_as_the_whole_one(folder: Path) -> None:
    texts = [" ".join(text.split()) for text in (*TEXTS, *CORPUS, "a \ud800 and \udfff")]
    for most in range(3, 40):
        tokenizer = Tokenizer.from_folder(folder, most)
        short = tokenizer.shortened(texts)
        assert short.keys() == {text for text in texts if tokenizer.encode(text).truncated}
        for text, part in short.items():
            assert text.startswith(part) and tokenizer.encode(part).ids == tokenizer.encode(text).ids, (most, text)


def test_only_texts_that_may_be_too_long_are_encoded(learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Tokenizer.from_folder(learned, 12)
    monkeypatch.setattr(small, "_backend", Mock(wraps=small._backend, normalizer=None))
    small.shortened(["a cat", "xyz" * 10, "é" * 4])
    assert [call.args[0] for call in small._backend.encode_batch.call_args_list] == [["xyz" * 10]]  # type: ignore[attr-defined]


def test_a_very_long_text_fits_the_network(tokenizer: Tokenizer) -> None:
    encoding = tokenizer.encode("a cat " * 50_000)
    assert len(encoding.ids) == MAX_TOKENS
    assert encoding.truncated


def test_a_batch_is_padded_on_the_right(tokenizer: Tokenizer) -> None:
    texts = ["a cat", "two cats on a couch", "<mask>"]
    ids, mask = tokenizer.encode_batch(texts)
    rows = [tokenizer.encode(text).ids for text in texts]
    assert ids.dtype == np.int64
    assert mask.dtype == np.bool_
    assert ids.shape == mask.shape == (3, max(map(len, rows)))
    for row, expected in enumerate(rows):
        assert tuple(ids[row][mask[row]]) == expected
        assert np.all(ids[row][len(expected) :] == tokenizer.pad_id)
        assert mask[row].tolist() == [True] * len(expected) + [False] * (ids.shape[1] - len(expected))


def test_a_batch_of_nothing(tokenizer: Tokenizer) -> None:
    ids, mask = tokenizer.encode_batch([])
    assert ids.shape == mask.shape == (0, 0)


def test_words_read_without_their_space(tokenizer: Tokenizer, reference: Any) -> None:
    first, cats, comma = tokenizer.encode("two cats,").ids[1:-1]
    assert [tokenizer.word(token) for token in (first, cats, comma)] == ["two", "cats", ","]
    assert not any(tokenizer.is_special(token) for token in (first, cats, comma))
    assert tokenizer.word(tokenizer.mask_id) == "<mask>"
    assert tokenizer.is_special(tokenizer.mask_id)
    for token in range(tokenizer.vocab_size):  # among them halves of characters
        assert tokenizer.word(token) == reference.decode([token]).strip()


def test_an_id_beyond_the_vocabulary_has_no_word(tokenizer: Tokenizer) -> None:
    """Embedding tables are often padded to a round number."""
    assert tokenizer.word(tokenizer.vocab_size + 5) == ""


def test_special_ids_and_size_are_those_of_the_vocabulary(tokenizer: Tokenizer, reference: Any) -> None:
    ours = (tokenizer.begin_id, tokenizer.pad_id, tokenizer.end_id, tokenizer.mask_id)
    assert ours == tuple(reference.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<mask>"]))
    assert tokenizer.vocab_size == len(reference)


def test_special_ids_may_stand_anywhere(learned: Path, tmp_path: Path) -> None:
    """RoBERTa's own `<mask>` is the last of 50265."""
    vocab = json.loads((learned / "vocab.json").read_text())
    last = max(vocab.values())
    moved = {token: {last: vocab["<mask>"], vocab["<mask>"]: last}.get(i, i) for token, i in vocab.items()}
    (tmp_path / "vocab.json").write_text(json.dumps(moved))
    shutil.copy(learned / "merges.txt", tmp_path)
    tokenizer = Tokenizer.from_folder(tmp_path, MAX_TOKENS)
    assert tokenizer.mask_id == last
    assert tokenizer.encode("a <mask>").ids[2] == last


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (8, 8),
        (8.0, 8),
        (512, 20),
        (10**30, 20),
        (1e30, 20),
        (float("inf"), 20),
        (float("nan"), 20),
        (-1, 20),
        (True, 20),
        ("8", 20),
        (None, 20),
    ],
)
def test_the_smaller_limit_wins(saved: Any, expected: int, learned: Path, tmp_path: Path) -> None:
    shutil.copytree(learned, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": saved}))
    assert Tokenizer.from_folder(tmp_path, 20).max_tokens == expected


def test_saved_truncation_and_padding_are_not_applied(reference: Any, tmp_path: Path) -> None:
    reference.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    data = json.loads(path.read_text())
    data["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    data["padding"] = {
        "strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>",
    }  # fmt: skip
    path.write_text(json.dumps(data))
    text = "two cats on a couch"
    assert list(Tokenizer.from_folder(tmp_path, MAX_TOKENS).encode(text).ids) == reference(text)["input_ids"]


# --- folders that are wrong


def test_a_folder_without_any_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json.*vocab\.json and merges\.txt"):
        Tokenizer.from_folder(tmp_path, MAX_TOKENS)


def test_a_vocabulary_without_its_merges(learned: Path, tmp_path: Path) -> None:
    shutil.copy(learned / "vocab.json", tmp_path)
    with pytest.raises(ModelError, match=r"no merges\.txt"):
        Tokenizer.from_folder(tmp_path, MAX_TOKENS)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {}}', "\x00\xff"])
def test_a_damaged_tokenizer_json(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content, encoding="latin-1")
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Tokenizer.from_folder(tmp_path, MAX_TOKENS)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_damaged_vocabulary_files(name: str, learned: Path, tmp_path: Path) -> None:
    shutil.copytree(learned, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_text("no such thing at all")
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        Tokenizer.from_folder(tmp_path, MAX_TOKENS)


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_a_vocabulary_without_a_special_token(token: str, learned: Path, tmp_path: Path) -> None:
    shutil.copytree(learned, tmp_path, dirs_exist_ok=True)
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    vocab[f"other {token}"] = vocab.pop(token)
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(ModelError, match=f"lacks {token}"):
        Tokenizer.from_folder(tmp_path, MAX_TOKENS)


def test_a_tokenizer_that_adds_no_begin_and_end(reference: Any, tmp_path: Path) -> None:
    reference.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
    with pytest.raises(ModelError, match="<s> and </s>"):
        Tokenizer.from_folder(tmp_path, MAX_TOKENS)


def test_a_damaged_tokenizer_config(learned: Path, tmp_path: Path) -> None:
    shutil.copytree(learned, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json"):
        Tokenizer.from_folder(tmp_path, MAX_TOKENS)
    (tmp_path / "tokenizer_config.json").write_bytes(b"\xff")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: not UTF-8 text"):
        Tokenizer.from_folder(tmp_path, MAX_TOKENS)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes with names in folders")
@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
@pytest.mark.parametrize("use", [Tokenizer.from_folder, digest_of_tokenizer])
def test_what_is_no_file_is_not_opened(name: str, make: Any, use: Any, learned: Path, tmp_path: Path) -> None:
    shutil.copytree(learned, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    signal.alarm(20)  # else a pipe would be waited for
    with pytest.raises(ModelError, match=f"{re.escape(str(tmp_path / name))}: not a file but a"):
        use(tmp_path, MAX_TOKENS)
    signal.alarm(0)


@pytest.mark.parametrize("use", [Tokenizer.from_folder, digest_of_tokenizer])
@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"])
def test_a_file_of_gigabytes_is_not_read(name: str, use: Any, learned: Path, tmp_path: Path) -> None:
    shutil.copytree(learned, tmp_path, dirs_exist_ok=True)
    with (tmp_path / name).open("ab") as file:
        file.truncate(5_000_000_000)
    with pytest.raises(ModelError, match=rf"{re.escape(name)}: larger than 100? MB"):
        use(tmp_path, MAX_TOKENS)


def test_a_limit_that_leaves_no_room(learned: Path) -> None:
    with pytest.raises(ModelError, match="no room"):
        Tokenizer.from_folder(learned, 2)
