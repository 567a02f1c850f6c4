"""Text -> ids for the text tower: RoBERTa's byte-level BPE, read from a checkpoint folder.

Any text has ids: bytes are the alphabet, so there is nothing that the vocabulary does not know. `<mask>` in a text is
the place to be filled and swallows the space before it ("a <mask>" and "a<mask>" are the same ids).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from bridgetower.errors import ModelError, UsageError

_BEGIN, _PAD, _END, _UNKNOWN, _MASK = SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")

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
        limit = _saved_limit(folder / "tokenizer_config.json", max_tokens)
        whole, vocab, merges = folder / "tokenizer.json", folder / "vocab.json", folder / "merges.txt"
        if whole.exists():
            return cls(_load(whole), limit, whole)
        if vocab.exists() and merges.exists():
            return cls(_build(vocab, merges), limit, vocab)
        missing = "tokenizer.json" if not vocab.exists() else "merges.txt (needed beside vocab.json) or tokenizer.json"
        raise ModelError(
            f"{folder}: no {missing}; copy tokenizer.json, or vocab.json and merges.txt, from the checkpoint's source"
        )

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


def _load(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every kind of damage
        raise ModelError(f"{path}: not a readable tokenizer ({error}); fetch it again") from error


def _build(vocab: Path, merges: Path) -> tokenizers.Tokenizer:
    """Assemble RoBERTa's tokenizer from the two files that hold what was learned."""
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


def _saved_limit(path: Path, most: int) -> int:
    """The "model_max_length" of a `tokenizer_config.json`, at most `most`: unlimited is written as a huge number."""
    if not path.exists():
        return most
    try:
        settings: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not UTF-8 text; fetch it again") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not readable as JSON ({error}); fetch it again") from error
    limit = settings.get("model_max_length") if isinstance(settings, dict) else None
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
        return most
    return int(min(limit, most))  # Infinity, too, is a way to say unlimited
