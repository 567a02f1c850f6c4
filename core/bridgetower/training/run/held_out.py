"""Held-out pictures and their texts, as the validation reads them."""

from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from bridgetower.checkpoints.tokenizer import Tokenizer
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.training.data.decoding import Wanted, pixels
from bridgetower.training.data.pairs import TrainingPicture, true_of

_BATCH = 16  # pictures


class HeldOutPictures:
    """Pictures that nothing is trained on, with all their captions; decoded again for each validation."""

    def __init__(
        self,
        pictures: Sequence[TrainingPicture],
        preprocessing: Preprocessing,
        tokenizer: Tokenizer,
        processes: int | None = None,
    ) -> None:
        texts = [caption for picture in pictures for caption in picture.captions]
        self.ids, self.mask = (torch.from_numpy(array) for array in tokenizer.encode_batch(texts))
        self.true_of = torch.from_numpy(true_of(texts, pictures))
        self._pictures, self._preprocessing, self._processes = pictures, preprocessing, processes

    def pixels(self, rows: range) -> Generator[Tensor]:
        """Yield the pixels of these pictures in their order, in batches: float32 [B, 3, H, W].

        Raises InputError where a file has changed since it was checked, ResourceError.
        """
        wanted = [Wanted(self._pictures[row]) for row in rows]
        with closing(pixels(wanted, self._preprocessing, window=_BATCH, processes=self._processes)) as decoded:
            while batch := list(islice(decoded, _BATCH)):
                yield torch.from_numpy(np.stack(batch))
