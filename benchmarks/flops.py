"""How much arithmetic the network needs, from its configuration alone.

Counted are the products, which is where the time should go: 2 floating-point operations for each weight and token of
a linear layer, 4 for each query, key and channel of an attention (scores, and the sum of values). Norms, activations,
heads, and the projections of texts are left out; they are well below 1%.

The count is that of the whole computation as the model is defined, whatever a program manages to leave out of it: the
last layer for every token, for example, though a contrastive vector reads but the first. So figures of different
programs compare, and a rate over it is an effective one.
"""

from bridgetower.network.config import ModelConfig


def linear(tokens: int, inputs: int, outputs: int) -> int:
    return 2 * tokens * inputs * outputs


def attention(queries: int, keys: int, width: int) -> int:
    return 4 * queries * keys * width


def self_attention(tokens: int, width: int) -> int:
    """Query, key, value and output projection, and the attention between them."""
    return linear(tokens, width, 4 * width) + attention(tokens, tokens, width)


def cross_attention(tokens: int, others: int, width: int) -> int:
    """Query and output for the tokens of this stream, key and value for those of the other."""
    return linear(tokens, width, 2 * width) + linear(others, width, 2 * width) + attention(tokens, others, width)


def feed_forward(tokens: int, width: int, inner: int) -> int:
    return linear(tokens, width, inner) + linear(tokens, inner, width)


def image(config: ModelConfig) -> int:
    """The vision tower on one picture: 60 GFLOP (base), 287 (large)."""
    vision, width = config.vision, config.vision.hidden_size
    tokens = vision.num_tokens
    patches = linear(tokens - 1, 3 * vision.patch_size**2, width)
    layer = self_attention(tokens, width) + feed_forward(tokens, width, 4 * width)
    return patches + config.text.num_hidden_layers * layer  # both towers are walked in step


def projections(config: ModelConfig) -> int:
    """What else it takes to turn the vision tower's output into the features that the cross-modal encoder reads."""
    return config.n_cross * linear(config.vision.num_tokens, config.vision.hidden_size, config.hidden_size)


def text(config: ModelConfig, tokens: int) -> int:
    """The text tower on one text."""
    tower = config.text
    layer = self_attention(tokens, tower.hidden_size)
    layer += feed_forward(tokens, tower.hidden_size, tower.intermediate_size)
    return tower.num_hidden_layers * layer


def pair(config: ModelConfig, tokens: int) -> int:
    """The cross-modal encoder on one text and one picture, from their features: 40 GFLOP (base), 97 (large)."""
    width, inner = config.hidden_size, config.text.intermediate_size

    def stream(own: int, other: int) -> int:
        return self_attention(own, width) + cross_attention(own, other, width) + feed_forward(own, width, inner)

    visual = config.vision.num_tokens
    return config.n_cross * (stream(tokens, visual) + stream(visual, tokens))
