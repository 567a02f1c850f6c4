"""The optimiser of a run: which parameters learn, how fast, and with which decay."""

import torch
from torch import nn

from bridgetower.network.bridgetower import BridgeTower
from bridgetower.training.recipe import Recipe

TOWERS = ("text_tower.", "vision_tower.")


def freeze(model: BridgeTower, recipe: Recipe) -> None:
    """Fix the weights of the towers that are frozen; with tied word embeddings also those of the word head."""
    model.text_tower.requires_grad_(not recipe.freezes("text"))
    model.vision_tower.requires_grad_(not recipe.freezes("vision"))


def make_optimiser(model: BridgeTower, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW over the parameters that learn, with the rates of the end of the warm-up."""
    return torch.optim.AdamW(parameter_groups(model, recipe), betas=recipe.betas, eps=recipe.eps)


def parameter_groups(model: BridgeTower, recipe: Recipe) -> list[dict[str, object]]:
    """Group parameters by learning rate (towers, or cross-modal encoder and heads) and weight decay (matrices only)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith(TOWERS), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.learning_rate * (1.0 if tower else recipe.new_factor),
            "weight_decay": recipe.weight_decay if matrix else 0.0,
        }
        for (tower, matrix), parameters in groups.items()
    ]


def schedule(step: int, recipe: Recipe) -> float:
    """Return the factor on the learning rate, in (0, 1], for 0-based `step`: linear warm-up, 1, linear decay to 0."""
    warmup = max(1, round(recipe.warmup * recipe.steps))
    decay = max(1, min(round(recipe.decay * recipe.steps), recipe.steps - warmup))
    return min((step + 1) / warmup, 1.0, max(recipe.steps - step, 1) / decay)
