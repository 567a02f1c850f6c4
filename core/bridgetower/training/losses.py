"""The three losses of training, one for each head.

Shapes: B pictures, T texts, E length of an ITC vector, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(
    text: Tensor, image: Tensor, cross: Tensor, logit_scale: Tensor, true_of: Tensor, keys: Tensor
) -> Tensor:
    """ITC loss of a batch: the mean of the three terms of `itc_loss`, and of image against text -> scalar.

    `text` [T, E], `image` and `cross` [B, E] have unit rows; text i < B is the caption of picture i, and `keys`
    int64 [T] is a picture that each text is true of, if there is one. `true_of` bool [T, B] removes pairs that are true
    by chance from the denominators, so that a text that is true of several pictures is not penalised. The reference
    lacks image-text; we add it, because images are queries, too.
    """
    b = len(image)
    queries = true_of.any(dim=1)  # all captions are among them
    by_chance = true_of.scatter(1, keys[:, None], False)  # [T, B]
    reference = itc_loss(text[queries], image, cross, logit_scale, by_chance[queries], keys[queries])
    others = true_of.T & ~torch.eye(b, len(text), dtype=torch.bool, device=text.device)
    return (3 * reference + contrast(image, text, logit_scale, others)) / 4


def itc_loss(
    text: Tensor,
    image: Tensor,
    cross: Tensor,
    logit_scale: Tensor,
    excused: Tensor | None = None,
    right: Tensor | None = None,
) -> Tensor:
    """ITC loss of the reference, of unit vectors: text [Q, E], image and cross [B, E] -> scalar.

    Mean of three cross entropies: text against images, text against pairs, image against pairs; over rows only. Text
    i < B is the caption of picture i; only the first term has the others, whose pictures are `right` int64 [Q].
    `excused` bool [Q, B]: where [i, j], text i and picture j are not in each other's denominators.
    """
    b = len(image)
    of_captions = None if excused is None else excused[:b]
    return torch.stack([
        contrast(text, image, logit_scale, excused, right),
        contrast(text[:b], cross, logit_scale, of_captions),
        contrast(image, cross, logit_scale, None if of_captions is None else of_captions.T),
    ]).mean()  # fmt: skip


def contrast(
    queries: Tensor, keys: Tensor, logit_scale: Tensor, excused: Tensor | None = None, right: Tensor | None = None
) -> Tensor:
    """Cross entropy of queries [Q, E] against keys [K, E] -> scalar.

    `right` int64 [Q] is the right key of each query; None: the key in the row of the query. `excused` bool [Q, K] marks
    keys that are not in the denominator of a query.
    """
    logits = (queries @ keys.T).float() * logit_scale
    if excused is not None:
        logits = logits.masked_fill(excused, float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(queries), device=queries.device) if right is None else right)


def itm_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Matching loss: logits [P, 2], labels int64 [P], 1 = the text is true of the picture -> scalar.

    The mean over the pairs; with `weights` float [P], the weighted sum.
    """
    if weights is None:
        return F.cross_entropy(logits.float(), labels)
    return (F.cross_entropy(logits.float(), labels, reduction="none") * weights).sum()


def mlm_loss(logits: Tensor, labels: Tensor, words: int | None = None) -> Tensor:
    """Masked-word loss: logits [..., V], labels int64 [...], -100 = not masked -> scalar.

    The mean over the masked words of these rows; with `words`, their sum divided by it.
    """
    logits, labels = logits.float().flatten(0, -2), labels.flatten()
    if words is None:
        return F.cross_entropy(logits, labels)
    return F.cross_entropy(logits, labels, reduction="sum") / words
