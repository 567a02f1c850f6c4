"""The gradients of one step: contrastive, matching and masked-word losses from one pass over each tower.

    pictures, captions -> towers -> ITC vectors -> gathered over chunks and processes -> ITC loss, false pairs
                                 -> fuse(captions with their pictures)                -> ITM, vectors "cross" of ITC
                                 -> fuse(pairs, in slices)                            -> ITM
                                 -> fuse(masked captions, in slices)                  -> MLM

Hard negatives are drawn by ITC similarity, as in the retrieval recipe of the paper (AAAI'23, section 4.3 and the
released training code), because matching has to separate the pairs that recall confuses.

The loss is that of the whole batch, however it is cut. A chunk is a number of pictures whose towers are computed at
once. With several chunks, a first pass without gradients finds the ITC vectors of all, so that each vector has all the
others as negatives (gradient cache, arXiv:2101.06983). The chunk that has a picture computes each pair of the picture,
and encodes the texts that it needs. So between processes only ITC vectors travel.

The features of a chunk are cut from the graph of the towers. Each slice of pairs goes backward at once, into the
gradients of the features, and the towers go backward once. So the activations of only one slice are kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from bridgetower.network.bridgetower import BridgeTower
from bridgetower.network.features import Fused, ImageFeatures, TextFeatures
from bridgetower.records import Head
from bridgetower.training.batch import Batch
from bridgetower.training.distributed import ONE_RANK, Ranks
from bridgetower.training.draws import MatchingPairs, generator_of, key_pictures, masked_texts, pairs, seed_of
from bridgetower.training.losses import contrastive_loss, itm_loss, mlm_loss
from bridgetower.training.precision import attention, autocast
from bridgetower.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Losses:
    """Means over the batch of all processes, in nats; None where the model lacks the head."""

    itc: float | None
    itm: float | None
    mlm: float | None


def backward(
    model: BridgeTower,
    batch: Batch,
    recipe: Recipe,
    *,
    mask_id: int,
    maskable: Tensor,
    seed: int,
    step: int,
    ranks: Ranks = ONE_RANK,
) -> Losses:
    """Add to `.grad` the gradients of the mean loss over the batch of all processes: the share of this process.

    The texts of the batch are on the device of the model; its pixels may be elsewhere, and move chunk by chunk.
    `mask_id` is the id of `<mask>`; `maskable` float [V] is the weight of a word in choosing masks, 0 = never. A tower
    whose parameters require no gradients runs without dropout. PyTorch's generators, of the CPU and of the GPU that
    computes, are afterwards as they were.
    """
    model.recompute_layers(recipe.gradient_checkpointing)
    for tower in (model.text_tower, model.vision_tower):
        tower.train(model.training and learns(tower))
    one = _Step(model, batch, recipe, mask_id, maskable, seed, step, ranks)
    gpus = [one.device] if one.device.type == "cuda" else []
    with torch.random.fork_rng(gpus), attention(one.device, recipe.precision):
        return one.backward()


def learns(module: nn.Module) -> bool:
    """Return whether a parameter of the module requires gradients."""
    return any(parameter.requires_grad for parameter in module.parameters())


@dataclass(slots=True)
class _Chunk:
    """Some pictures of this process, and the texts whose ITC vectors this chunk computes."""

    pictures: range  # in the whole batch
    texts: Tensor  # int64 [C]: the captions of these pictures, then others
    text_hidden: list[Tensor] | None = None  # the outputs of a frozen tower, kept for the second pass
    image_hidden: list[Tensor] | None = None


@dataclass(slots=True)
class _Encoded:
    """A chunk behind the towers."""

    text: TextFeatures
    text_leaf: TextFeatures  # the same numbers, cut from the graph
    image: ImageFeatures
    image_leaf: ImageFeatures
    captioned: Fused | None  # the captions with their pictures
    cross: Tensor | None  # [b, E]


_Vectors = tuple[Tensor, Tensor, Tensor]  # ITC vectors of texts, of pictures, and of pictures with their captions


class _Step:
    """One step of a model: its batch, the chunks of this process, and all that seed and step decide."""

    def __init__(
        self,
        model: BridgeTower,
        batch: Batch,
        recipe: Recipe,
        mask_id: int,
        maskable: Tensor,
        seed: int,
        step: int,
        ranks: Ranks,
    ) -> None:
        self.model, self.batch, self.recipe, self.ranks = model, batch, recipe, ranks
        self.seed, self.step = seed, step
        self.device = batch.ids.device
        self.true_of = batch.true_of.cpu()
        self.keys = key_pictures(self.true_of, generator_of(seed, step, "keys"))
        captions = batch.ids[: self.true_of.shape[1]].cpu()
        self.masked = masked_texts(captions, recipe, mask_id, maskable.cpu(), generator_of(seed, step, "masks"))
        self.size = recipe.micro_batch or max(1, len(batch.pixels))
        self.chunks = list(self._chunks())

    def _chunks(self) -> Iterator[_Chunk]:
        stop = self.batch.start + len(self.batch.pixels)
        for first in range(self.batch.start, stop, self.size):
            pictures = range(first, min(first + self.size, stop))
            yield _Chunk(pictures, _within(self.keys, pictures))

    def backward(self) -> Losses:
        """Add the gradients of all losses; return the losses."""
        heads, recipe = self.model.heads, self.recipe
        first = self._encode(self.chunks[0]) if len(self.chunks) == 1 else None
        itc, gradients, logits = None, None, torch.zeros(self.true_of.shape)
        if Head.ITC in heads:
            if first is not None:
                vectors = [_vectors(first)]
            else:
                with torch.no_grad():
                    vectors = [_vectors(self._encode(chunk)) for chunk in self.chunks]
            itc, gradients, logits = self._contrast(vectors)

        drawn: MatchingPairs | None = None
        if Head.ITM in heads:
            generator = generator_of(self.seed, self.step, "pairs")
            drawn = pairs(logits, self.true_of, self.keys, recipe.easy_share, generator)
        totals = torch.zeros(2, device=self.device)  # ITM, MLM
        for chunk in self.chunks:
            totals += self._chunk_backward(chunk, first or self._encode(chunk), gradients, drawn)
        itm, mlm = self.ranks.sum(totals).tolist()
        return Losses(itc, itm if Head.ITM in heads else None, mlm if Head.MLM in heads else None)

    # The first part of a chunk, which both passes compute alike, with the same dropout

    def _encode(self, chunk: _Chunk) -> _Encoded:
        torch.manual_seed(seed_of(self.seed, self.step, chunk.pictures.start))
        model = self.model
        with self._computing():
            text = self._text_features(self.batch.ids[chunk.texts], self.batch.mask[chunk.texts], chunk)
            image = self._image_features(chunk)
            text_leaf, image_leaf = _leaf(text), _leaf(image)
            captioned = cross = None
            if model.heads & {Head.ITC, Head.ITM}:
                own = torch.arange(len(chunk.pictures), device=self.device)
                captioned = model.fuse(text_leaf, image_leaf, text_rows=own, keep_text=1, keep_image=1)
                cross = model.itc_cross(captioned) if Head.ITC in model.heads else None
        return _Encoded(text, text_leaf, image, image_leaf, captioned, cross)

    def _text_features(self, ids: Tensor, mask: Tensor, chunk: _Chunk | None = None) -> TextFeatures:
        hidden = None if chunk is None else chunk.text_hidden
        if hidden is None:
            frozen = not learns(self.model.text_tower)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                hidden = self.model.text_tower(ids, mask, self.model.config.n_cross)
            if frozen and chunk is not None and len(self.chunks) > 1:
                hidden = chunk.text_hidden = self._kept(hidden)
        return self.model.text_features(hidden, mask)

    def _image_features(self, chunk: _Chunk) -> ImageFeatures:
        hidden, config = chunk.image_hidden, self.model.config
        if hidden is None:
            frozen = not learns(self.model.vision_tower)
            first = chunk.pictures.start - self.batch.start
            pixels = self.batch.pixels[first : first + len(chunk.pictures)].to(self.device)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                hidden = self.model.vision_tower(pixels, config.text.num_hidden_layers, config.n_cross)
            if frozen and len(self.chunks) > 1:
                hidden = chunk.image_hidden = self._kept(hidden)
        return self.model.image_features(hidden)

    def _kept(self, hidden: list[Tensor]) -> list[Tensor]:
        """Return outputs of a frozen tower in the type of products: they are kept for the whole batch."""
        dtype = torch.bfloat16 if self.recipe.precision == "bf16" else torch.float32
        return [layer.to(dtype) for layer in hidden]

    # ITC over the whole batch

    def _contrast(self, vectors: list[_Vectors]) -> tuple[float, _Vectors, Tensor]:
        """Return the loss, its gradients for the vectors of all, and the logits [T, B] of texts by pictures.

        `vectors` are those of the chunks; those of other processes are in the sum over all processes.
        """
        texts, b = self.true_of.shape
        width = self.model.config.contrastive_hidden_size
        assert width is not None
        text, image, cross = (torch.zeros(rows, width, device=self.device) for rows in (texts, b, b))
        for chunk, (of_texts, of_images, of_pairs) in zip(self.chunks, vectors, strict=True):
            own = slice(chunk.pictures.start, chunk.pictures.stop)
            text[chunk.texts], image[own], cross[own] = of_texts, of_images, of_pairs
        gathered = self.ranks.sum(torch.cat([text, image, cross]))
        text, image, cross = (part.detach().requires_grad_() for part in torch.split(gathered, [texts, b, b]))
        scale = self.model.logit_scale
        scale_leaf = scale.detach().requires_grad_()
        itc = contrastive_loss(text, image, cross, scale_leaf, self.batch.true_of, self.keys.to(self.device))
        *gradients, of_scale = torch.autograd.grad(itc, (text, image, cross, scale_leaf))
        if scale.requires_grad:
            torch.autograd.backward(scale, of_scale / self.ranks.size)  # each process has all of it
        logits = (text @ image.T * scale).detach()
        # All draw the same pairs: the product of another kind of processor may differ in the last bits.
        logits = self.ranks.sum(logits if self.ranks.rank == 0 else torch.zeros_like(logits))
        return itc.item(), (gradients[0], gradients[1], gradients[2]), logits.cpu()

    # The losses of a chunk

    def _chunk_backward(
        self, chunk: _Chunk, encoded: _Encoded, itc: _Vectors | None, drawn: MatchingPairs | None
    ) -> Tensor:
        """Add the gradients of a chunk; return its part of the ITM and MLM losses, [2]."""
        totals = torch.zeros(2, device=self.device)
        start, stop = chunk.pictures.start, chunk.pictures.stop
        own = slice(start, stop)
        text, image = encoded.text_leaf, encoded.image_leaf

        roots: list[Tensor] = []
        gradients: list[Tensor | None] = []
        if itc is not None and encoded.cross is not None:
            roots.append(encoded.cross)
            gradients.append(itc[2][own].to(encoded.cross.dtype))
        if drawn is not None and encoded.captioned is not None:
            itm = self._matching(encoded.captioned, drawn, torch.arange(start, stop))
            totals[0] += itm.detach()
            roots.append(itm)
            gradients.append(None)
        encoded.captioned = encoded.cross = None
        if roots:
            torch.autograd.backward(roots, gradients)
        del roots

        if drawn is not None:
            here = (drawn.pictures >= start) & (drawn.pictures < stop)
            here[: self.true_of.shape[1]] = False  # captions with their pictures, which are done
            totals[0] += self._pairs_backward(chunk, text, image, drawn, here.nonzero()[:, 0])
        if Head.MLM in self.model.heads:
            totals[1] += self._words_backward(chunk, image)

        vectors: list[tuple[Tensor, Tensor]] = []
        if itc is not None:
            assert encoded.text.itc is not None and encoded.image.itc is not None
            vectors = [(encoded.text.itc, itc[0][chunk.texts]), (encoded.image.itc, itc[1][own])]
        _flow([*_parts(encoded.text, text), *_parts(encoded.image, image), *vectors])
        return totals

    def _pairs_backward(
        self, chunk: _Chunk, text: TextFeatures, image: ImageFeatures, drawn: MatchingPairs, rows: Tensor
    ) -> Tensor:
        """Add the gradients of the pairs of a chunk to its parameters and features; return their part of the loss."""
        wanted = drawn.texts[rows]
        own = torch.isin(wanted, chunk.texts)
        total = self._some_pairs_backward(chunk.pictures.start, chunk.texts, text, image, drawn, rows[own])
        for others in _slices(torch.unique(wanted[~own]), self.size):
            with self._computing():
                more = self._text_features(self.batch.ids[others], self.batch.mask[others])
            leaf, some = _leaf(more), rows[torch.isin(wanted, others)]
            total += self._some_pairs_backward(chunk.pictures.start, others, leaf, image, drawn, some)
            _flow(_parts(more, leaf))
        return total

    def _some_pairs_backward(
        self, start: int, texts: Tensor, text: TextFeatures, image: ImageFeatures, drawn: MatchingPairs, rows: Tensor
    ) -> Tensor:
        """The same for pairs of these texts, int64 [C], and of pictures from `start` on, whose features are given."""
        place = torch.zeros(len(self.true_of), dtype=torch.int64)  # of each text in `text`
        place[texts] = torch.arange(len(texts))
        total = torch.zeros((), device=self.device)
        for some in _slices(rows, self.size):
            text_rows = place[drawn.texts[some]].to(self.device)
            image_rows = (drawn.pictures[some] - start).to(self.device)
            with self._computing():
                fused = self.model.fuse(
                    text, image, text_rows=text_rows, image_rows=image_rows, keep_text=1, keep_image=1
                )
            itm = self._matching(fused, drawn, some)
            torch.autograd.backward(itm)
            total += itm.detach()
        return total

    def _matching(self, fused: Fused, drawn: MatchingPairs, rows: Tensor) -> Tensor:
        with self._computing():
            logits = self.model.itm(fused)
        return itm_loss(logits, drawn.is_true[rows].to(self.device), drawn.weights[rows].to(self.device))

    def _words_backward(self, chunk: _Chunk, image: ImageFeatures) -> Tensor:
        """Add the gradients of the masked captions of a chunk; return their part of the loss."""
        masked, model = self.masked, self.model
        total = torch.zeros((), device=self.device)
        for some in _slices(_within(masked.captions, chunk.pictures), self.size):
            ids, labels = masked.ids[some].to(self.device), masked.labels[some].to(self.device)
            captions = masked.captions[some].to(self.device)
            hidden = labels != -100
            with self._computing():
                text = self._text_features(ids, self.batch.mask[captions])
                fused = model.fuse(text, image, image_rows=captions - chunk.pictures.start, keep_image=1)
                # The head has a row for each word of the vocabulary, so it reads only the hidden words.
                logits = model.mlm(replace(fused, text=fused.text[hidden]))
            mlm = mlm_loss(logits, labels[hidden], masked.words)
            torch.autograd.backward(self.recipe.mlm_weight * mlm)
            total += mlm.detach()
        return total

    def _computing(self) -> torch.autocast:
        return autocast(self.device, self.recipe.precision)


def _vectors(encoded: _Encoded) -> _Vectors:
    assert encoded.text.itc is not None and encoded.image.itc is not None and encoded.cross is not None
    text, image, cross = (x.detach().float() for x in (encoded.text.itc, encoded.image.itc, encoded.cross))
    return text, image, cross


def _within(pictures: Tensor, some: range) -> Tensor:
    """Return the places in int64 [...] that hold one of some pictures."""
    return ((pictures >= some.start) & (pictures < some.stop)).nonzero()[:, 0]


def _slices(rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """Cut int64 [R] into slices; none where there are no rows, as where all texts are true of all pictures."""
    return torch.split(rows, size) if len(rows) else ()


_Features = TypeVar("_Features", TextFeatures, ImageFeatures)


def _leaf(features: _Features) -> _Features:
    """Return the same features without ITC vectors, as the leaves of a new graph."""
    layers = tuple(layer.detach().requires_grad_() for layer in features.layers)
    assert features.alone is not None
    alone = features.alone.detach().requires_grad_()
    return replace(features, layers=layers, alone=alone, itc=None)


def _parts(features: _Features, leaf: _Features) -> list[tuple[Tensor, Tensor]]:
    """Return the tensors of the features, each with the gradient that its leaf has got."""
    assert features.alone is not None
    assert leaf.alone is not None
    parts = [*zip(features.layers, leaf.layers, strict=True), (features.alone, leaf.alone)]
    return [(part, cut.grad) for part, cut in parts if cut.grad is not None]


def _flow(parts: list[tuple[Tensor, Tensor]]) -> None:
    """Go backward from several tensors with their gradients."""
    parts = [(tensor, gradient.to(tensor.dtype)) for tensor, gradient in parts if tensor.requires_grad]
    if parts:
        torch.autograd.backward([tensor for tensor, _ in parts], [gradient for _, gradient in parts])
