"""Text -> ids for the text tower: RoBERTa's byte-level BPE, read from a checkpoint folder.

Every text has ids, because the vocabulary contains every byte. `<mask>` in a text marks a word to be filled in, and
absorbs the space before it ("a <mask>" and "a<mask>" have the same ids).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from bridgetower.checkpoints.documents import read_document, read_json
from bridgetower.errors import ModelError, UsageError

_BEGIN, _PAD, _END, _UNKNOWN, _MASK = SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")

_WHOLE, _VOCAB, _MERGES, _SETTINGS = "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"
_MOST_BYTES = 100_000_000  # of a file with a vocabulary; RoBERTa's has 2 MB

_IGNORED_SETTINGS = ("truncation", "padding")  # settings of tokenizer.json that `Tokenizer` replaces

_ENCODED_AT_ONCE = 1000  # texts

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, as from a command line that is not UTF-8
_OTHER = "copy the one that belongs to this checkpoint"


@dataclass(frozen=True, slots=True)
class Encoding:
    """One text as the network reads it."""

    ids: tuple[int, ...]  # <s> ... </s>
    masks: tuple[int, ...]  # positions of <mask> in `ids`, ascending; without those that were cut off
    truncated: bool  # the end of the text did not fit


class Tokenizer:
    """The tokenizer of one checkpoint. It has no state between calls, so threads may share it."""

    def __init__(self, backend: tokenizers.Tokenizer, max_tokens: int, source: Path) -> None:
        """Wrap a loaded `tokenizers` object; `max_tokens` counts <s> and </s>; `source` names the file in errors."""
        backend.no_truncation()  # saved settings would cut or pad silently; our methods do both
        backend.no_padding()
        if max_tokens < 3:
            raise ModelError(f"{source}: {max_tokens} tokens leave no room for a word; fetch the checkpoint again")
        special = _special_ids(backend, source)
        self._backend = backend
        self.max_tokens = max_tokens
        self._special = frozenset(special.values())
        self.begin_id, self.pad_id, self.end_id, _, self.mask_id = special.values()
        if backend.encode("").ids != [self.begin_id, self.end_id]:
            raise ModelError(
                f"{source}: it does not put texts between <s> and </s>; this is not a RoBERTa tokenizer; {_OTHER}"
            )

    @classmethod
    def from_folder(cls, folder: Path, max_tokens: int) -> "Tokenizer":
        """Read `tokenizer.json`, or else `vocab.json` and `merges.txt`.

        `max_tokens` is the number of positions of the network (RoBERTa: max_position_embeddings - 2); a smaller
        "model_max_length" in `tokenizer_config.json` replaces it. Raises ModelError if a file is missing or damaged.
        """
        limit = _saved_limit(folder, max_tokens)
        learned = _vocabulary_files(folder)
        return cls(_load(*learned) if len(learned) == 1 else _build(*learned), limit, learned[0])

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self._backend.get_vocab_size()

    @property
    def highest_id(self) -> int:
        """The largest id that a text can have; with gaps it exceeds `vocab_size` - 1."""
        return max(self._backend.get_vocab().values())

    def encode(self, text: str) -> Encoding:
        """Turn one text into ids; tokens beyond `max_tokens` are cut off at the end, before </s>.

        Raises UsageError for a text that is empty or only white space, because its vector would be meaningless.
        """
        if not text.strip():
            raise UsageError("the text is empty; give at least one word")
        ids = self._backend.encode(_SURROGATE.sub("\ufffd", text)).ids
        truncated = len(ids) > self.max_tokens
        if truncated:
            ids = [*ids[: self.max_tokens - 1], self.end_id]
        masks = tuple(position for position, token in enumerate(ids) if token == self.mask_id)
        return Encoding(ids=tuple(ids), masks=masks, truncated=truncated)

    def encode_batch(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Turn B texts into ids int64 [B, T] and mask bool [B, T], True = token; padded on the right to the longest."""
        rows = [self.encode(text).ids for text in texts]
        ids = np.full((len(rows), max(map(len, rows), default=0)), self.pad_id, dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=np.bool_)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return ids, mask

    def shortened(self, texts: Iterable[str]) -> dict[str, str]:
        """Return the texts that are too long, each with the part that is read: both have the same ids."""
        # No token has fewer bytes than one; a tokenizer may put a blank before a text. Normalised, it may be longer.
        most = self.max_tokens - 3 if self._backend.normalizer is None else 0
        long = (text for text in texts if len(text.encode("utf-8", "surrogatepass")) > most)
        last = self.max_tokens - 2  # of the tokens that are read, counted from <s>
        found: dict[str, str] = {}
        while batch := list(islice(long, _ENCODED_AT_ONCE)):
            encodings = self._backend.encode_batch([_SURROGATE.sub("\ufffd", text) for text in batch])
            for text, encoding in zip(batch, encodings, strict=True):
                if len(encoding.ids) > self.max_tokens:
                    found[text] = text[: encoding.offsets[last][1]]
        return found

    def word(self, token_id: int) -> str:
        """Return the text of a token, without surrounding space; "" for an id outside the vocabulary."""
        return self._backend.decode([token_id], skip_special_tokens=False).strip()

    def is_special(self, token_id: int) -> bool:
        """Return whether a token is one of SPECIAL_TOKENS."""
        return token_id in self._special


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """Return the files that `Tokenizer.from_folder` reads. Raises ModelError if one is missing."""
    settings = folder / _SETTINGS
    return _vocabulary_files(folder) + ((settings,) if settings.exists() else ())


def digest_of_tokenizer(folder: Path, max_tokens: int) -> str:
    """Return the hex digest of the tokenizer that `Tokenizer.from_folder` makes of these arguments.

    sha256 over lines of JSON with sorted keys: the greatest number of tokens of a text, then the content of each
    vocabulary file. The layout of a file, and its settings for truncation and padding, do not count. A vocabulary in
    tokenizer.json has another digest than in vocab.json and merges.txt. Raises ModelError.
    """
    content: list[object] = [_saved_limit(folder, max_tokens)]
    for path in _vocabulary_files(folder):
        if path.name == _MERGES:
            text = read_document(path, _MOST_BYTES).decode("utf-8", "replace")
            content.append([line for line in text.splitlines() if not line.startswith("#version")])
        else:
            learned = read_json(path, _MOST_BYTES)
            content.append({k: v for k, v in learned.items() if path.name != _WHOLE or k not in _IGNORED_SETTINGS})
    digest = hashlib.sha256()
    for part in content:
        digest.update(json.dumps(part, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _vocabulary_files(folder: Path) -> tuple[Path, ...]:
    """Return `tokenizer.json`, or else `vocab.json` and `merges.txt`. Raises ModelError if they are missing."""
    whole, vocab, merges = folder / _WHOLE, folder / _VOCAB, folder / _MERGES
    if whole.exists():
        return (whole,)
    if vocab.exists() and merges.exists():
        return (vocab, merges)
    missing = _WHOLE if not vocab.exists() else f"{_MERGES} (needed beside {_VOCAB}) or {_WHOLE}"
    raise ModelError(
        f"{folder}: no {missing}; copy tokenizer.json, or vocab.json and merges.txt, from the checkpoint's source"
    )


def _load(path: Path) -> tokenizers.Tokenizer:
    content = read_document(path, _MOST_BYTES)
    try:
        return tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises bare Exception for every kind of damage
        raise ModelError(f"{path}: not a readable tokenizer ({error}); fetch it again") from error


def _build(vocab: Path, merges: Path) -> tokenizers.Tokenizer:
    """Assemble RoBERTa's tokenizer from its two vocabulary files."""
    for path in (vocab, merges):
        read_document(path, _MOST_BYTES)  # the library would hang on a pipe or a device
    try:
        backend = tokenizers.Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    except Exception as error:  # the library raises bare Exception for every kind of damage
        raise ModelError(f"{vocab} and {merges.name}: not a readable vocabulary ({error}); fetch them again") from error
    special = _special_ids(backend, vocab)
    # RoBERTa was trained with a <mask> that absorbs the space before it, but the two files do not record that.
    backend.add_special_tokens([AddedToken(token, lstrip=token == _MASK, normalized=False) for token in special])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(
        (_END, special[_END]), (_BEGIN, special[_BEGIN]), trim_offsets=True, add_prefix_space=False
    )
    return backend


def _special_ids(backend: tokenizers.Tokenizer, source: Path) -> dict[str, int]:
    """Return the ids of SPECIAL_TOKENS, in that order."""
    ids = {token: token_id for token in SPECIAL_TOKENS if (token_id := backend.token_to_id(token)) is not None}
    missing = [token for token in SPECIAL_TOKENS if token not in ids]
    if missing:
        raise ModelError(
            f"{source}: the vocabulary lacks {', '.join(missing)}; this is not a RoBERTa tokenizer; {_OTHER}"
        )
    return ids


def _saved_limit(folder: Path, most: int) -> int:
    """Return "model_max_length" of `tokenizer_config.json`, but at most `most`, as huge numbers mean no limit."""
    if not (folder / _SETTINGS).exists():
        return most
    limit = read_json(folder / _SETTINGS).get("model_max_length")
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
        return most
    return int(min(limit, most))  # Infinity, too, means no limit
