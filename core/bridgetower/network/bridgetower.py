"""The whole BridgeTower network: two towers, the bridges, the cross-modal encoder and the three heads.

BridgeTower is unusual in these points:

- The two uni-modal towers differ: the text tower is a RoBERTa (post-norm, GELU, positions start at
  `pad_token_id + 1`), the vision tower a CLIP ViT (pre-norm, quick-GELU, a LayerNorm before and after the blocks).
- The *last `n_cross` layers* of each tower, not just the last one, feed the cross-modal encoder: layer k of these is
  bridged into layer k of the encoder. `ln_post` of the vision tower is applied to each of its layers.
- The cross-modal encoder has a text stream and an image stream with separate weights. In each layer, each stream
  attends to the state of the other stream *before* that layer. Text keys are masked, image keys never are.
- Bridges are a LayerNorm over a sum, with at most one learned scalar. The first cross-modal layer has no earlier layer
  to bridge to and takes a LayerNorm over the uni-modal input alone.
- The contrastive vectors (ITC) of text and image come from the towers alone, before any fusion. The third vector,
  "cross", comes from the pooled output of the fusion.
- The image side of everything before `fuse` is independent of the text, so it can be computed once and kept: the tower,
  the projections, and the self-attention of the first cross-modal layer.

Shapes: B batch, T text tokens, N visual tokens (1 + patches), D hidden size, V vocabulary, E length of an ITC vector.
Wherever a batch of texts meets a batch of pictures, row i belongs to row i.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bridgetower.errors import ModelError
from bridgetower.network.config import ModelConfig, TextConfig, VisionConfig
from bridgetower.network.layers import CrossAttention, FeedForward, Linear, SelfAttention, as_key_mask, embedding
from bridgetower.records import Head, require_heads

_ModuleT = TypeVar("_ModuleT", bound=nn.Module)


# Tensors that pass between the parts of the network


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """The features of a batch of texts: everything that is computed from the texts alone."""

    layers: tuple[Tensor, ...]  # n_cross x [B, T, D]: input of the cross-modal encoder, then what is bridged into it
    alone: Tensor  # [B, T, D]: `layers[0]` after the self-attention of the first cross-modal layer
    mask: Tensor  # bool [B, T], True = token, False = padding
    itc: Tensor | None  # [B, E], unit length; None without an ITC head

    def select(self, rows: Tensor) -> Self:
        """The rows of the batch that an int64 [B'] index names, in its order, repeats allowed."""
        itc = None if self.itc is None else self.itc[rows]
        return type(self)(tuple(layer[rows] for layer in self.layers), self.alone[rows], self.mask[rows], itc)

    @classmethod
    def join(cls, texts: Sequence[Self]) -> Self:
        """Concatenate texts of one length along B."""
        layers = tuple(torch.cat(same) for same in zip(*(text.layers for text in texts), strict=True))
        itc = [text.itc for text in texts if text.itc is not None]
        alone, mask = torch.cat([text.alone for text in texts]), torch.cat([text.mask for text in texts])
        return cls(layers, alone, mask, torch.cat(itc) if itc else None)


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """The features of a batch of pictures: everything that is computed from them alone, so reusable for every text."""

    layers: tuple[Tensor, ...]  # n_cross x [B, N, D]: input of the cross-modal encoder, then what is bridged into it
    # [B, N, D]: `layers[0]` after the self-attention of the first cross-modal layer. If it is None, `fuse` computes it.
    alone: Tensor | None
    itc: Tensor | None  # [B, E], unit length; None without an ITC head

    def select(self, rows: Tensor) -> Self:
        """The rows of the batch that an int64 [B'] index names, in its order, repeats allowed."""
        alone, itc = (None if part is None else part[rows] for part in (self.alone, self.itc))
        return type(self)(tuple(layer[rows] for layer in self.layers), alone, itc)

    def first(self, number: int) -> Self:
        """The first rows of the batch."""
        if number == len(self.layers[0]):
            return self
        alone, itc = (None if part is None else part[:number] for part in (self.alone, self.itc))
        return type(self)(tuple(layer[:number] for layer in self.layers), alone, itc)

    @classmethod
    def join(cls, batches: Sequence[Self]) -> Self:
        """Concatenate at least one batch along B, each part that all of them have."""
        if len(batches) == 1:
            return batches[0]
        layers = tuple(torch.cat(same) for same in zip(*(batch.layers for batch in batches), strict=True))
        alone, itc = [batch.alone for batch in batches], [batch.itc for batch in batches]
        return cls(layers, _joined(alone), _joined(itc))


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenate tensors along the first axis; None if one is missing."""
    there = [part for part in parts if part is not None]
    return torch.cat(there) if len(there) == len(parts) else None


@dataclass(frozen=True, slots=True)
class Fused:
    """Output of the cross-modal encoder, row i from text i and picture i."""

    text: Tensor  # [B, T, D], or its first tokens only
    image: Tensor  # [B, N, D], or its first tokens only
    pooled: Tensor  # [B, 2D], each number in (-1, 1)


# The text tower


class TextLayer(nn.Module):
    """Self-attention and feed-forward, the norm *after* each residual sum."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.attention = SelfAttention(width, config.num_attention_heads, config.attention_probs_dropout_prob)
        self.norm_attention = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = FeedForward(width, config.intermediate_size)
        self.norm_mlp = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, key_mask: Tensor | None) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        x = self.norm_attention(x + self.dropout(self.attention(x, key_mask)))
        x = self.norm_mlp(x + self.dropout(self.mlp(x)))
        return x


class TextTower(nn.Module):
    """RoBERTa: token ids to hidden states."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.pad_id = config.pad_token_id
        self.word = embedding(config.vocab_size, width)
        self.position = embedding(config.max_position_embeddings, width)
        self.token_type = embedding(config.type_vocab_size, width)  # only row 0 is ever used
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, ids: Tensor, mask: Tensor, n_last: int) -> list[Tensor]:
        """ids int64 [B, T], mask bool [B, T] -> the outputs of the last `n_last` layers, each [B, T, D]."""
        real = ids != self.pad_id
        # Padding has position `pad_id`; the first token has the next position.
        positions = real.cumsum(dim=1) * real + self.pad_id  # [B, T]
        x = self.dropout(self.norm(self.word(ids) + self.position(positions) + self.token_type.weight[0]))
        key_mask = as_key_mask(mask)
        outputs = []
        for layer in self.layers:
            x = layer(x, key_mask)
            outputs.append(x)
        return outputs[-n_last:]


# The vision tower


class VisionLayer(nn.Module):
    """Self-attention and feed-forward, the norm *before* each."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.norm_attention = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention = SelfAttention(width, config.num_attention_heads)
        self.norm_mlp = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = FeedForward(width, 4 * width, quick=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        x = x + self.attention(self.norm_attention(x))
        x = x + self.mlp(self.norm_mlp(x))
        return x


class VisionTower(nn.Module):
    """CLIP ViT: pixels to hidden states. The caller applies `norm_post` to the layers that it uses."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.patch = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_token = nn.Parameter(torch.empty(width))
        self.position = nn.Parameter(torch.empty(config.num_tokens, width))
        self.norm_pre = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))
        self.norm_post = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, pixels: Tensor, depth: int, n_last: int) -> list[Tensor]:
        """pixels [B, 3, H, W] -> the outputs of the last `n_last` of the first `depth` layers, each [B, N, D]."""
        patches = self.patch(pixels.to(self.patch.weight.dtype)).flatten(2).transpose(1, 2)  # [B, N - 1, D]
        class_token = self.class_token.to(patches.dtype).expand(len(patches), 1, -1)
        x = self.norm_pre(torch.cat([class_token, patches], dim=1) + self.position)
        outputs = []
        for layer in self.layers[:depth]:
            x = layer(x)
            outputs.append(x)
        return outputs[-n_last:]


# The cross-modal encoder


class Bridge(nn.Module):
    """Add a layer of a tower to a stream of the cross-modal encoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.link_tower_type == "scaled_add":
            self.scale = nn.Parameter(torch.tensor(1.0))
        elif config.link_tower_type == "interpolate":
            self.beta = nn.Parameter(torch.tensor(0.5))
        self.kind = config.link_tower_type
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, tower: Tensor, stream: Tensor) -> Tensor:
        """[B, T, D] of the tower and of the stream -> [B, T, D]."""
        if self.kind == "scaled_add":
            joined = tower * self.scale + stream
        elif self.kind == "interpolate":
            joined = tower * (1 - self.beta) + stream * self.beta
        else:
            joined = tower + stream
        normed: Tensor = self.norm(joined)
        return normed


class CrossLayer(nn.Module):
    """One layer of one stream: self-attention, attention to the other stream, feed-forward; all post-norm.

    The self-attention is a separate method, `alone`, because in the first layer it does not need the other stream.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width, heads, dropout = config.hidden_size, config.num_attention_heads, config.attention_probs_dropout_prob
        self.self_attention = SelfAttention(width, heads, dropout)
        self.norm_self = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.cross_attention = CrossAttention(width, heads, dropout)
        self.norm_cross = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp = FeedForward(width, config.intermediate_size)
        self.norm_mlp = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def alone(self, x: Tensor, mask: Tensor | None, keep: int | None = None) -> Tensor:
        """x [B, T, D] -> [B, T, D], or its first `keep` tokens; `mask` belongs to `x`."""
        attended: Tensor = self.norm_self(x[:, :keep] + self.dropout(self.self_attention(x, mask, keep)))
        return attended

    def forward(self, x: Tensor, other: Tensor, other_mask: Tensor | None) -> Tensor:
        """x [B, T, D] from `alone`, and the other stream before this layer [B, N, D] -> [B, T, D]."""
        x = self.norm_cross(x + self.dropout(self.cross_attention(x, other, other_mask)))
        x = self.norm_mlp(x + self.dropout(self.mlp(x)))
        return x


# The heads


class ContrastiveHead(nn.Module):
    """ITC: projections to the vectors of text, picture and pair, and the learned temperature."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.contrastive_hidden_size is None:
            raise ModelError("contrastive_hidden_size is missing: a contrastive head needs the length of its vectors")
        self.text = Linear(config.hidden_size, config.contrastive_hidden_size)
        self.image = Linear(config.hidden_size, config.contrastive_hidden_size)
        self.cross = Linear(2 * config.hidden_size, config.contrastive_hidden_size)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))


class WordHead(nn.Module):
    """MLM: a hidden state -> a logit for each word of the vocabulary."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.transform = Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = Linear(config.hidden_size, config.text.vocab_size)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., V]."""
        logits: Tensor = self.decoder(self.norm(self.transform.activated(x, F.gelu)))
        return logits


class BridgeTower(nn.Module):
    """The network with the given heads; a method that needs an absent head raises `ModelError`.

    Weights are undefined until they are loaded, or set by `initialise`.
    """

    def __init__(self, config: ModelConfig, heads: frozenset[Head] = frozenset(Head)) -> None:
        super().__init__()
        self.config = config
        self.heads = frozenset(heads)
        width, n_cross = config.hidden_size, config.n_cross

        self.text_tower = TextTower(config.text)
        self.vision_tower = VisionTower(config.vision)

        # One projection for all layers, or one for each layer.
        n_transforms = 1 if config.share_cross_modal_transformer_layers else n_cross
        self.text_transforms = nn.ModuleList(Linear(config.text.hidden_size, width) for _ in range(n_transforms))
        self.image_transforms = nn.ModuleList(Linear(config.vision.hidden_size, width) for _ in range(n_transforms))
        self.stream_type = embedding(2, width)  # row 0 marks the text stream, row 1 the image stream

        self.text_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.image_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.text_bridges = nn.ModuleList(Bridge(config) for _ in range(n_cross - 1))
        self.image_bridges = nn.ModuleList(Bridge(config) for _ in range(n_cross - 1))
        self.text_stream = nn.ModuleList(CrossLayer(config.text) for _ in range(n_cross))
        self.image_stream = nn.ModuleList(CrossLayer(config.text) for _ in range(n_cross))
        self.text_pooler = Linear(width, width)
        self.image_pooler = Linear(width, width)

        self.itc_head = ContrastiveHead(config) if Head.ITC in heads else None
        self.itm_head = Linear(2 * width, 2) if Head.ITM in heads else None
        self.mlm_head = WordHead(config) if Head.MLM in heads else None
        self.tie_words()

    def tie_words(self) -> None:
        """Make the MLM head share the weights of the word embeddings, if the configuration ties them."""
        if self.mlm_head is not None and self.config.tie_word_embeddings:
            self.mlm_head.decoder.weight = self.text_tower.word.weight

    def without_text_tower(self) -> Self:
        """Remove the text tower, which inference has in NumPy: `text_features` takes the outputs of its layers."""
        del self.text_tower
        return self

    # The towers

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Encode texts: ids int64 [B, T], padded with `pad_token_id`; mask bool [B, T], True = token."""
        return self.text_features(self.text_tower(ids, mask, self.config.n_cross), mask)

    def text_features(self, hidden: Sequence[Tensor], mask: Tensor) -> TextFeatures:
        """Encode texts from the outputs of the last `n_cross` layers of the text tower, each [B, T, D]."""
        first, *later = (self._text_input(x, k) for k, x in enumerate(hidden))
        first = self.text_norm(first)
        alone = _layer(self.text_stream, 0).alone(first, as_key_mask(mask))
        return TextFeatures((first, *later), alone, mask, None if self.itc_head is None else self._itc_text(hidden[-1]))

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encode pictures: pixels [B, 3, image_size, image_size], normalised, of any float dtype."""
        hidden = self.vision_tower(pixels, self.config.text.num_hidden_layers, self.config.n_cross)
        first, *later = (self._image_input(x, k) for k, x in enumerate(hidden))
        itc = None if self.itc_head is None else self._itc_image(hidden[-1])
        first = self.image_norm(first)
        return ImageFeatures((first, *later), self.image_alone(first), itc)

    def image_alone(self, first: Tensor) -> Tensor:
        """Compute `ImageFeatures.alone` from `ImageFeatures.layers[0]`: [B, N, D] -> [B, N, D]."""
        return _layer(self.image_stream, 0).alone(first, None)

    def embed_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the ITC vectors [B, E], unit length, without computing the other features."""
        return self._itc_text(self.text_tower(ids, mask, 1)[0])

    def embed_image(self, pixels: Tensor) -> Tensor:
        """Return the ITC vectors [B, E], unit length, without computing the other features."""
        return self._itc_image(self.vision_tower(pixels, self.config.text.num_hidden_layers, 1)[0])

    def _text_input(self, x: Tensor, k: int) -> Tensor:
        """Project a text layer to the input of cross-modal layer k: [B, T, D] -> [B, T, D]."""
        projected: Tensor = _transform(self.text_transforms, k)(x)
        return projected + self.stream_type.weight[0]

    def _image_input(self, x: Tensor, k: int) -> Tensor:
        """Project a vision layer to the input of cross-modal layer k: [B, N, vision width] -> [B, N, D]."""
        projected: Tensor = _transform(self.image_transforms, k)(self.vision_tower.norm_post(x))
        return projected + self.stream_type.weight[1]

    # The cross-modal encoder

    def fuse(
        self,
        text: TextFeatures,
        image: ImageFeatures,
        *,
        keep_text: int | None = None,
        keep_image: int | None = None,
    ) -> Fused:
        """Run the cross-modal encoder on text i and picture i, for each i.

        The last layer computes only the first `keep_text` and `keep_image` tokens, or all of them for None. The poolers
        read one token of each stream, so `itm` and `itc_cross` need 1 and 1; `mlm` needs None and 1.
        """
        mask = as_key_mask(text.mask)
        x, y = text.layers[0], image.layers[0]
        for k in range(self.config.n_cross):
            last = k == self.config.n_cross - 1
            text_keep, image_keep = (keep_text, keep_image) if last else (None, None)
            text_layer, image_layer = _layer(self.text_stream, k), _layer(self.image_stream, k)
            if k == 0:
                image_alone = self.image_alone(y) if image.alone is None else image.alone
                x_alone, y_alone = text.alone[:, :text_keep], image_alone[:, :image_keep]
            else:
                x = self.text_bridges[k - 1](text.layers[k], x)
                y = self.image_bridges[k - 1](image.layers[k], y)
                x_alone, y_alone = text_layer.alone(x, mask, text_keep), image_layer.alone(y, None, image_keep)
            # One assignment, because each stream reads the other stream as it was before this layer.
            x, y = text_layer(x_alone, y, None), image_layer(y_alone, x, mask)
        pooled = torch.cat([self.text_pooler(x[:, 0]), self.image_pooler(y[:, 0])], dim=-1).tanh()  # [B, 2D]
        return Fused(x, y, pooled)

    # The heads

    def itm(self, fused: Fused) -> Tensor:
        """Return logits [B, 2]: column 1 for "the text is true of the picture", column 0 for "it is not"."""
        logits: Tensor = self._require(self.itm_head, Head.ITM)(fused.pooled)
        return logits

    def mlm(self, fused: Fused) -> Tensor:
        """Return logits [B, T, V] of the word at each position."""
        logits: Tensor = self._require(self.mlm_head, Head.MLM)(fused.text)
        return logits

    def itc_cross(self, fused: Fused) -> Tensor:
        """Return the ITC vector of each pair: [B, E], unit length."""
        return F.normalize(self._require(self.itc_head, Head.ITC).cross(fused.pooled), dim=-1)

    @property
    def logit_scale(self) -> Tensor:
        """The factor by which ITC cosines are multiplied before the softmax: a positive scalar."""
        return self._require(self.itc_head, Head.ITC).logit_scale.exp()

    def _itc_text(self, hidden: Tensor) -> Tensor:
        """The last output of the text tower [B, T, D], *not* projected, -> [B, E]."""
        return F.normalize(self._require(self.itc_head, Head.ITC).text(hidden[:, 0]), dim=-1)

    def _itc_image(self, hidden: Tensor) -> Tensor:
        """The last output of the vision tower [B, N, D], *not* projected, -> [B, E].

        The class token alone is projected, for the last cross-modal layer, so that `embed_image` and `encode_image`
        return equal bits. The reference has no ITC with separate projections; taking the projection of the last layer
        is our choice.
        """
        projected = self._image_input(hidden[:, :1], self.config.n_cross - 1)
        return F.normalize(self._require(self.itc_head, Head.ITC).image(projected[:, 0]), dim=-1)

    def _require(self, module: _ModuleT | None, head: Head) -> _ModuleT:
        require_heads(self.heads, head)
        assert module is not None
        return module

    # Training from scratch

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> Self:
        """Draw all weights at random: CLIP's scheme for the vision tower, a normal of std 0.02 for all else."""
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()
            elif isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(std=0.02, generator=generator)
                if isinstance(module, nn.Linear):
                    module.bias.zero_()
            elif isinstance(module, Bridge):
                if module.kind == "scaled_add":
                    module.scale.fill_(1.0)
                elif module.kind == "interpolate":
                    module.beta.fill_(0.5)
            elif isinstance(module, ContrastiveHead):
                module.logit_scale.fill_(self.config.logit_scale_init_value)

        tower, width = self.vision_tower, self.config.vision.hidden_size
        depth = (2 * len(tower.layers)) ** -0.5  # keeps the variance of the residual stream from growing with depth
        fan_in = tower.patch.weight[0].numel()
        tower.patch.weight.normal_(std=fan_in**-0.5, generator=generator)
        tower.class_token.normal_(std=width**-0.5, generator=generator)
        tower.position.normal_(std=width**-0.5, generator=generator)
        for layer in tower.layers:
            assert isinstance(layer, VisionLayer)
            layer.attention.qkv.weight.normal_(std=width**-0.5, generator=generator)
            layer.attention.out.weight.normal_(std=width**-0.5 * depth, generator=generator)
            layer.mlp.up.weight.normal_(std=(2 * width) ** -0.5, generator=generator)
            layer.mlp.down.weight.normal_(std=width**-0.5 * depth, generator=generator)
        return self


def _layer(stream: nn.ModuleList, k: int) -> CrossLayer:
    layer = stream[k]
    assert isinstance(layer, CrossLayer)
    return layer


def _transform(transforms: nn.ModuleList, k: int) -> nn.Module:
    """Return the projection of cross-modal layer k, which all layers may share."""
    return transforms[k if len(transforms) > 1 else 0]
