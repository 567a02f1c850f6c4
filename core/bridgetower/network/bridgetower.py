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
from typing import Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bridgetower.errors import ModelError
from bridgetower.network.config import ModelConfig, TextConfig
from bridgetower.network.features import Fused, ImageFeatures, TextFeatures
from bridgetower.network.layers import CrossAttention, FeedForward, Linear, SelfAttention, as_key_mask, embedding, run
from bridgetower.network.towers import TextTower, VisionLayer, VisionTower
from bridgetower.records import Head, require_heads

_ModuleT = TypeVar("_ModuleT", bound=nn.Module)


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
        self.recompute = False  # the cross-modal layers in the backward pass
        self.tie_words()

    def tie_words(self) -> None:
        """Make the MLM head share the weights of the word embeddings, if the configuration ties them."""
        if self.mlm_head is not None and self.config.tie_word_embeddings:
            self.mlm_head.decoder.weight = self.text_tower.word.weight

    def recompute_layers(self, recompute: bool) -> None:
        """Let the backward pass compute each layer again, so that between the passes only its inputs are kept."""
        for part in (self, self.text_tower, self.vision_tower):
            part.recompute = recompute

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
        return self.image_features(self.vision_tower(pixels, self.config.text.num_hidden_layers, self.config.n_cross))

    def image_features(self, hidden: Sequence[Tensor]) -> ImageFeatures:
        """Encode pictures from the outputs of the last `n_cross` layers of the vision tower, each [B, N, D]."""
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
        text_rows: Tensor | None = None,
        image_rows: Tensor | None = None,
        keep_text: int | None = None,
        keep_image: int | None = None,
    ) -> Fused:
        """Run the cross-modal encoder on text i and picture i, for each i.

        `text_rows` and `image_rows`, int64 [B'], name other rows, repeats allowed; each layer copies those that it
        reads. The last layer computes only the first `keep_text` and `keep_image` tokens, or all of them for None. The
        poolers read one token of each stream, so `itm` and `itc_cross` need 1 and 1; `mlm` needs None and 1.
        """
        mask = as_key_mask(_rows(text.mask, text_rows))

        def layer(k: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            last = k == self.config.n_cross - 1
            text_keep, image_keep = (keep_text, keep_image) if last else (None, None)
            text_layer, image_layer = _layer(self.text_stream, k), _layer(self.image_stream, k)
            if k == 0:
                image_alone = self.image_alone(y) if image.alone is None else _rows(image.alone, image_rows)
                x_alone, y_alone = _rows(text.alone, text_rows)[:, :text_keep], image_alone[:, :image_keep]
            else:
                x = self.text_bridges[k - 1](_rows(text.layers[k], text_rows), x)
                y = self.image_bridges[k - 1](_rows(image.layers[k], image_rows), y)
                x_alone, y_alone = text_layer.alone(x, mask, text_keep), image_layer.alone(y, None, image_keep)
            # Each stream reads the other stream as it was before this layer.
            return text_layer(x_alone, y, None), image_layer(y_alone, x, mask)

        x, y = _rows(text.layers[0], text_rows), _rows(image.layers[0], image_rows)
        for k in range(self.config.n_cross):
            x, y = run(layer, k, x, y, recompute=self.recompute)
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

    # Training from scratch, of the whole network or of heads

    def add_heads(self, heads: frozenset[Head], generator: torch.Generator) -> Self:
        """Add heads that the network lacks, with weights drawn at random.

        The vectors of a contrastive head have the length of the configuration, else half the hidden size.
        """
        if Head.ITC in heads:
            self.config = self.config.with_contrastive_head()
            self.itc_head = ContrastiveHead(self.config)
            self._draw_weights(self.itc_head, generator)
        if Head.ITM in heads:
            self.itm_head = Linear(2 * self.config.hidden_size, 2)
            self._draw_weights(self.itm_head, generator)
        if Head.MLM in heads:
            self.mlm_head = WordHead(self.config)
            self._draw_weights(self.mlm_head, generator)
            self.tie_words()
        self.heads |= heads
        return self

    @torch.no_grad()
    def _draw_weights(self, part: nn.Module, generator: torch.Generator) -> None:
        """Draw the weights of a part of the network: a normal of std 0.02 for each matrix."""
        for module in part.modules():
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

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> Self:
        """Draw all weights at random: CLIP's scheme for the vision tower, a normal of std 0.02 for all else."""
        self._draw_weights(self, generator)
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


def _rows(tensor: Tensor, rows: Tensor | None) -> Tensor:
    return tensor if rows is None else tensor.index_select(0, rows)


def _layer(stream: nn.ModuleList, k: int) -> CrossLayer:
    layer = stream[k]
    assert isinstance(layer, CrossLayer)
    return layer


def _transform(transforms: nn.ModuleList, k: int) -> nn.Module:
    """Return the projection of cross-modal layer k, which all layers may share."""
    return transforms[k if len(transforms) > 1 else 0]
