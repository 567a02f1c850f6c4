"""Vectors in two clouds apart, as a contrastive model makes them of pictures and of texts.

Pictures lie around one direction and texts around another. Along the themes that both speak of they vary in the same
way, strongly along a few axes and less and less along others; a theme that is common has many pictures. The numbers
are those of the published contrastive models: pictures among themselves have a cosine of about 0.6, texts 0.7, a text
and a picture 0.1, and the best of a million pictures for a text 0.4.
"""

import numpy as np
from numpy.typing import NDArray


class Clouds:
    """Reproducible vectors: the same seed and block give the same numbers."""

    def __init__(self, dim: int = 512, *, themes: int = 2000, rank: int = 128, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        axes, _ = np.linalg.qr(rng.normal(size=(dim, rank + 2)))
        self._pictures, self._texts = axes.T[:2].astype(np.float32)
        spread = axes.T[2:] / np.sqrt(np.arange(1, rank + 1))[:, None]
        self._axes = (spread / np.linalg.norm(spread)).astype(np.float32)
        self._themes = rng.normal(size=(themes, rank)).astype(np.float32)
        frequency = 1 / np.arange(1, themes + 1) ** 0.7
        self._frequency = frequency / frequency.sum()
        self.dim, self._rank, self._seed = dim, rank, seed

    def pictures(self, block: int, number: int) -> NDArray[np.float32]:
        """Unit vectors `[number, E]`."""
        rng = np.random.default_rng([self._seed, 1, block])
        theme = self._themes[rng.choice(len(self._themes), number, p=self._frequency)]
        said = 0.7 * theme + 0.7 * rng.standard_normal(theme.shape, np.float32)
        return self._unit(rng, 0.75 * self._pictures + 0.6 * said @ self._axes, 0.25)

    def texts(self, block: int, number: int) -> NDArray[np.float32]:
        """Unit vectors `[number, E]`: of two themes each, and vaguer than pictures."""
        rng = np.random.default_rng([self._seed, 2, block])
        first, second = self._themes[rng.choice(len(self._themes), (2, number), p=self._frequency)]
        said = 0.6 * first + 0.35 * second + 0.5 * rng.standard_normal(first.shape, np.float32)
        around = 0.85 * self._texts + 0.12 * self._pictures
        return self._unit(rng, around + 0.4 * said @ self._axes, 0.35)

    def _unit(self, rng: np.random.Generator, vectors: NDArray[np.float32], noise: float) -> NDArray[np.float32]:
        vectors = vectors + rng.standard_normal(vectors.shape, np.float32) * np.float32(noise / np.sqrt(self.dim))
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit
