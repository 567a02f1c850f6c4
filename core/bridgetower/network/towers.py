"""The two uni-modal towers: RoBERTa for texts, the ViT of CLIP for pictures.

Shapes: B batch, T text tokens, N visual tokens (1 + patches), D hidden size.
"""

import torch
from torch import Tensor, nn

from bridgetower.network.config import TextConfig, VisionConfig
from bridgetower.network.layers import FeedForward, SelfAttention, as_key_mask, embedding, run

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
        self.recompute = False  # the layers in the backward pass

    def forward(self, ids: Tensor, mask: Tensor, n_last: int) -> list[Tensor]:
        """ids int64 [B, T], mask bool [B, T] -> the outputs of the last `n_last` layers, each [B, T, D]."""
        real = ids != self.pad_id
        # Padding has position `pad_id`; the first token has the next position.
        positions = real.cumsum(dim=1) * real + self.pad_id  # [B, T]
        x = self.dropout(self.norm(self.word(ids) + self.position(positions) + self.token_type.weight[0]))
        key_mask = as_key_mask(mask)
        outputs = []
        for layer in self.layers:
            x = run(layer, x, key_mask, recompute=self.recompute)
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
        self.recompute = False  # the layers in the backward pass

    def forward(self, pixels: Tensor, depth: int, n_last: int) -> list[Tensor]:
        """pixels [B, 3, H, W] -> the outputs of the last `n_last` of the first `depth` layers, each [B, N, D]."""
        patches = self.patch(pixels.to(self.patch.weight.dtype)).flatten(2).transpose(1, 2)  # [B, N - 1, D]
        class_token = self.class_token.to(patches.dtype).expand(len(patches), 1, -1)
        x = self.norm_pre(torch.cat([class_token, patches], dim=1) + self.position)
        outputs = []
        for layer in self.layers[:depth]:
            x = run(layer, x, recompute=self.recompute)
            outputs.append(x)
        return outputs[-n_last:]
