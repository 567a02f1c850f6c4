"""The three losses of training, one for each head.

Shapes: B batch, E length of an ITC vector, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def itc_loss(text: Tensor, image: Tensor, cross: Tensor, logit_scale: Tensor, excused: Tensor | None = None) -> Tensor:
    """Contrastive loss of a batch of matching pairs, all [B, E] unit vectors -> scalar.

    Mean of three cross entropies: text against images, text against pairs, image against pairs; over rows only, as in
    the reference. `excused` bool [B, B]: where [i, j], text i and image j are not in each other's denominators.
    """
    by_image = None if excused is None else excused.T
    rows = ((text, image, excused), (text, cross, excused), (image, cross, by_image))
    return torch.stack([contrast(queries, keys, logit_scale, excluded) for queries, keys, excluded in rows]).mean()


def contrast(queries: Tensor, keys: Tensor, logit_scale: Tensor, excused: Tensor | None = None) -> Tensor:
    """Cross entropy of queries against keys, both [B, E], where the right key is in the row of the query -> scalar.

    `excused` bool [B, B] marks keys (columns) that are not in the denominator of a query (row).
    """
    logits = (queries @ keys.T).float() * logit_scale
    if excused is not None:
        logits = logits.masked_fill(excused, float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(queries), device=queries.device))


def itm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Matching loss: logits [B, 2], labels int64 [B], 1 = the text is true of the picture -> scalar."""
    return F.cross_entropy(logits, labels)


def mlm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Masked-word loss: logits [..., V], labels int64 [...], -100 = not masked -> scalar."""
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=-100)
