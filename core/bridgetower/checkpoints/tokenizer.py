"""Text -> ids for the text tower: RoBERTa's byte-level BPE, read from a checkpoint folder.

Any text has ids: bytes are the alphabet, so there is nothing that the vocabulary does not know. `<mask>` in a text is
the place to be filled and swallows the space before it ("a <mask>" and "a<mask>" are the same ids).
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from bridgetower.checkpoints.documents import read_document, read_json
from bridgetower.errors import ModelError, UsageError

_BEGIN, _PAD, _END, _UNKNOWN, _MASK = SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")

_WHOLE, _VOCAB, _MERGES, _SETTINGS = "tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"
_MOST_BYTES = 100_000_000  # of a file with a vocabulary; those of RoBERTa have 2 MB

_OVERRULED = ("truncation", "padding")  # of tokenizer.json: both are done here

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, as from a command line that is not UTF-8


@dataclass(frozen=True, slots=True)
class Encoding:
    """One text as the network reads it."""

    ids: tuple[int, ...]  # <s> ... </s>
    masks: tuple[int, ...]  # positions of <mask> in `ids`, ascending; those that were cut off are not among them
    truncated: bool  # the end of the text did not fit


class Tokenizer:
    """The tokenizer of one checkpoint. It keeps no state between calls and may be shared by threads."""

    def __init__(self, backend: tokenizers.Tokenizer, max_tokens: int, source: Path) -> None:
        """Wrap a loaded `tokenizers` object; `max_tokens` counts <s> and </s>; `source` names the file in errors."""
        backend.no_truncation()  # a saved setting would silently cut or pad: both are done here, visibly
        backend.no_padding()
        if max_tokens < 3:
            raise ModelError(f"{source}: {max_tokens} tokens leave no room for a word between <s> and </s>")
        special = _special_ids(backend, source)
        self._backend = backend
        self.max_tokens = max_tokens
        self._special = frozenset(special.values())
        self.begin_id, self.pad_id, self.end_id, _, self.mask_id = special.values()
        if backend.encode("").ids != [self.begin_id, self.end_id]:
            raise ModelError(f"{source}: it does not put texts between <s> and </s>; this is not a RoBERTa tokenizer")

    @classmethod
    def from_folder(cls, folder: Path, max_tokens: int) -> "Tokenizer":
        """Read `tokenizer.json`, or else `vocab.json` and `merges.txt`.

        `max_tokens` is what the network has positions for (RoBERTa: max_position_embeddings - 2); a smaller
        "model_max_length" in `tokenizer_config.json` wins. Raises ModelError where a file is missing or damaged.
        """
        limit = _saved_limit(folder, max_tokens)
        learned = _learned(folder)
        return cls(_load(*learned) if len(learned) == 1 else _build(*learned), limit, learned[0])

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self._backend.get_vocab_size()

    @property
    def highest_id(self) -> int:
        """The largest id that a text can have; ids need not be without gaps."""
        return max(self._backend.get_vocab().values())

    def encode(self, text: str) -> Encoding:
        """Turn one text into ids; what goes beyond `max_tokens` is cut off at the end, before </s>.

        Raises UsageError for an empty text and for one of white space: its vector would mean nothing.
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

    def word(self, token_id: int) -> str:
        """What a token reads as, without surrounding space; "" for an id that the vocabulary does not have."""
        return self._backend.decode([token_id], skip_special_tokens=False).strip()

    def is_special(self, token_id: int) -> bool:
        """Whether a token marks the text and is no part of it."""
        return token_id in self._special


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """The files that `Tokenizer.from_folder` reads. Raises ModelError where one is missing."""
    settings = folder / _SETTINGS
    return _learned(folder) + ((settings,) if settings.exists() else ())


def digest_of_tokenizer(folder: Path, max_tokens: int) -> str:
    """Hex digest of what `Tokenizer.from_folder` makes of these arguments.

    sha256 over lines of JSON with sorted keys: the number of tokens that a text may have, then what each file holds
    that was learned. How a file is laid out, and what it says of cutting and padding, which is not done by it, changes
    nothing. The same vocabulary in tokenizer.json, and in vocab.json and merges.txt, has two digests. Raises
    ModelError.
    """
    content: list[object] = [_saved_limit(folder, max_tokens)]
    for path in _learned(folder):
        if path.name == _MERGES:
            text = read_document(path, _MOST_BYTES).decode("utf-8", "replace")
            content.append([line for line in text.splitlines() if not line.startswith("#version")])
        else:
            learned = read_json(path, _MOST_BYTES)
            content.append({k: v for k, v in learned.items() if path.name != _WHOLE or k not in _OVERRULED})
    digest = hashlib.sha256()
    for part in content:
        digest.update(json.dumps(part, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _learned(folder: Path) -> tuple[Path, ...]:
    """`tokenizer.json`, or else `vocab.json` and `merges.txt`. Raises ModelError where they are missing."""
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
    """Assemble RoBERTa's tokenizer from the two files that hold what was learned."""
    for path in (vocab, merges):
        read_document(path, _MOST_BYTES)  # the library would wait for a pipe, and read a device for ever
    try:
        backend = tokenizers.Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    except Exception as error:  # the library raises bare Exception for every kind of damage
        raise ModelError(f"{vocab} and {merges.name}: not a readable vocabulary ({error}); fetch them again") from error
    special = _special_ids(backend, vocab)
    # The two files do not say that <mask> takes the space before it with it; RoBERTa was trained so.
    backend.add_special_tokens([AddedToken(token, lstrip=token == _MASK, normalized=False) for token in special])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(
        (_END, special[_END]), (_BEGIN, special[_BEGIN]), trim_offsets=True, add_prefix_space=False
    )
    return backend


def _special_ids(backend: tokenizers.Tokenizer, source: Path) -> dict[str, int]:
    """The ids of SPECIAL_TOKENS, in that order."""
    ids = {token: token_id for token in SPECIAL_TOKENS if (token_id := backend.token_to_id(token)) is not None}
    missing = [token for token in SPECIAL_TOKENS if token not in ids]
    if missing:
        raise ModelError(f"{source}: the vocabulary lacks {', '.join(missing)}; this is not a RoBERTa tokenizer")
    return ids


def _saved_limit(folder: Path, most: int) -> int:
    """The "model_max_length" of `tokenizer_config.json`, at most `most`: unlimited is written as a huge number."""
    if not (folder / _SETTINGS).exists():
        return most
    limit = read_json(folder / _SETTINGS).get("model_max_length")
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
        return most
    return int(min(limit, most))  # Infinity, too, is a way to say unlimited
