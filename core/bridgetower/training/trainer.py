"""Train a BridgeTower: contrastive, matching and masked-language losses together, from one pass over each tower.

    Batch -> towers once -> ITC over the batch
                         -> fuse(positives | hard pictures | hard texts | foils) -> ITM
                         -> fuse(masked texts)                                   -> MLM

Hard negatives are drawn by ITC similarity, as in the retrieval recipe of the paper (AAAI'23, section 4.3 and the
released training code): the pairs that recall confuses are the ones that matching has to tell apart. What is *not* a
negative is said by the batch, not guessed: `Batch.true_of` names every text that is true of every picture.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bridgetower.files.atomic import replace_file
from bridgetower.network.bridgetower import BridgeTower, Fused
from bridgetower.records import Head, require_heads
from bridgetower.training.losses import contrast, itc_loss, itm_loss, mlm_loss

MAX_LOGIT_SCALE = math.log(100)  # CLIP's bound: beyond it the contrastive loss grows unstable


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the result, besides data and seed. Defaults follow the retrieval fine-tuning recipe."""

    steps: int
    learning_rate: float = 5e-6
    new_factor: float = 5.0  # on the learning rate of the cross-modal encoder and the heads
    warmup: float = 0.05  # share of the steps
    weight_decay: float = 0.01  # not on biases, norms and other vectors
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    clip_norm: float = 1.0
    mask_share: float = 0.15  # of the tokens of a text that may be masked
    maskings: float = 1.0  # masked copies of the texts of a batch: 0.5 is the first half of them, 2.0 each one twice
    single_share: float = 0.0  # of the masked copies that hide one word only, with everything else there to tell it
    easy_share: float = 0.0  # of the ITM negatives that are drawn evenly, not by ITC: the obvious has to be learned too
    bf16: bool = True  # autocast; the weights stay fp32


@dataclass(slots=True)
class Batch:
    """B pictures, a text for each that is true of it, and who else it is true of."""

    pixels: Tensor  # float32 [B, 3, H, W], preprocessed
    ids: Tensor  # int64 [B, T]
    mask: Tensor  # bool [B, T], True = token
    true_of: Tensor  # bool [B, B], [i, j]: text i is true of picture j; the diagonal is True
    foil_ids: Tensor | None = None  # int64 [B, T]: a text known to be false of picture i; None where nobody wrote any
    foil_mask: Tensor | None = None  # bool [B, T]


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one optimisation step did; losses are means over the batch, in nats."""

    step: int  # finished steps, from 1
    itc: float
    itm: float
    mlm: float
    learning_rate: float


def losses(
    model: BridgeTower, batch: Batch, recipe: Recipe, mask_id: int, maskable: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The ITC, ITM and MLM losses of one batch, scalars; on the CPU only.

    `mask_id` is the id of `<mask>`; `maskable` float [V] says how readily a word is the one that is hidden, 0 is never.
    """
    b = len(batch.ids)
    own = torch.arange(b)
    told = torch.arange(max(1, round(recipe.maskings * b))) % b  # the rows that are masked
    share = torch.full((len(told),), recipe.mask_share)
    share[: round(recipe.single_share * len(told))] = 0.0  # the first copy first
    masked_ids, labels = mask_tokens(batch.ids[told], share, mask_id, maskable, generator)

    id_parts, mask_parts = [batch.ids, masked_ids], [batch.mask, batch.mask[told]]
    if batch.foil_ids is not None and batch.foil_mask is not None:
        id_parts.append(batch.foil_ids)
        mask_parts.append(batch.foil_mask)
    text = model.encode_text(torch.cat(id_parts), torch.cat(mask_parts))
    image = model.encode_image(batch.pixels)
    assert text.itc is not None and image.itc is not None
    text_itc, image_itc = text.itc[:b], image.itc

    with torch.no_grad():
        similarity = (text_itc @ image_itc.T).float() * model.logit_scale
        similarity = similarity.masked_fill(batch.true_of, float("-inf"))
        # [B] each: for each text a picture that it is false of, for each picture a text that is false of it.
        false_image = _draw(similarity, recipe.easy_share, generator)
        false_text = _draw(similarity.T, recipe.easy_share, generator)

    foils = b + len(told) + own if batch.foil_ids is not None else own[:0]
    text_index = torch.cat([own, own, false_text, foils])
    image_index = torch.cat([own, false_image, own, own[: len(foils)]])
    pairs = model.fuse(text.select(text_index), image.select(image_index), keep_text=1, keep_image=1)
    # Half of the weight on what is true, half on what is false: the probability is that of an even guess.
    logits = model.itm(pairs).float()  # [3B or 4B, 2]
    itm = (itm_loss(logits[:b], torch.ones_like(own)) + itm_loss(logits[b:], torch.zeros_like(text_index[b:]))) / 2

    cross_itc = model.itc_cross(Fused(pairs.text[:b], pairs.image[:b], pairs.pooled[:b]))
    itc = contrastive_loss(text_itc, image_itc, cross_itc, model.logit_scale, batch.true_of)

    told_pairs = model.fuse(text.select(b + torch.arange(len(told))), image.select(told), keep_image=1)
    mlm = mlm_loss(model.mlm(told_pairs).float(), labels)
    return itc, itm, mlm


def contrastive_loss(text: Tensor, image: Tensor, cross: Tensor, logit_scale: Tensor, true_of: Tensor) -> Tensor:
    """Mean cross entropy of text-image (both ways), text-cross and image-cross, each [B, E] with unit rows.

    The loss of the reference and, as images search too, each image among the texts. `true_of` bool [B, B] takes pairs
    that are true by chance out of the denominator, so that saying less is not punished.
    """
    by_chance = true_of & ~torch.eye(len(text), dtype=torch.bool)
    image_text = contrast(image, text, logit_scale, by_chance.T)
    return (3 * itc_loss(text, image, cross, logit_scale, by_chance) + image_text) / 4


def mask_tokens(
    ids: Tensor, share: Tensor, mask_id: int, maskable: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Replace one maskable token of each text, if it has any, and a share of the others, by `<mask>`.

    `ids` int64 [B, T]; `share` float [B] in [0, 1]; `maskable` float [V]: the one is drawn in proportion to it, the
    others evenly from all above 0. Returns masked ids and labels, int64 [B, T]; a label is -100 where nothing was
    masked. Always `<mask>`, never a random or the same token (BERT's 80/10/10): the task is to fill what is visibly
    missing.
    """
    weights = maskable[ids]  # float [B, T]
    words = weights > 0
    one = torch.multinomial(weights + 1e-9, 1, generator=generator)  # [B, 1]; the mask below drops an empty row's
    chosen = words & (torch.rand(ids.shape, generator=generator) < share[:, None])
    chosen = chosen.scatter(1, one, True) & words
    return ids.masked_fill(chosen, mask_id), ids.masked_fill(~chosen, -100)


def train(
    model: BridgeTower,
    batches: Callable[[int], Iterable[Batch]],
    recipe: Recipe,
    *,
    mask_id: int,
    maskable: Tensor,
    seed: int,
    state_file: Path | None = None,
    save_every: int = 500,
) -> Iterator[StepReport]:
    """Train in place, on the CPU only, and report each step; stops after `recipe.steps`.

    `mask_id` and `maskable` as for `losses`.
    `batches(step)` gives the batches from `step` on. With a `state_file`, model, optimiser and step are saved there
    every `save_every` steps and at the end, and a later call goes on from it.
    """
    optimiser = torch.optim.AdamW(_parameter_groups(model, recipe), betas=recipe.betas, eps=recipe.eps)
    base_rates = [group["lr"] for group in optimiser.param_groups]
    step = _load_state(model, optimiser, state_file) if state_file and state_file.exists() else 0
    require_heads(model.heads, *Head)
    assert model.itc_head is not None
    scale = model.itc_head.logit_scale
    model.train()
    for batch in batches(step):
        if step >= recipe.steps:
            break
        factor = _schedule(step, recipe)
        for group, rate in zip(optimiser.param_groups, base_rates, strict=True):
            group["lr"] = rate * factor
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        with _plain_products(), torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            itc, itm, mlm = losses(model, batch, recipe, mask_id, maskable, generator)
        optimiser.zero_grad(set_to_none=True)
        (itc + itm + mlm).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimiser.step()
        with torch.no_grad():
            scale.clamp_(max=MAX_LOGIT_SCALE)
        step += 1
        if state_file and (step % save_every == 0 or step == recipe.steps):
            _save_state(model, optimiser, step, state_file)
        yield StepReport(step, itc.item(), itm.item(), mlm.item(), base_rates[0] * factor)
    model.eval()


@contextmanager
def _plain_products() -> Iterator[None]:
    """Attention as two plain products, in bf16 where its input is.

    The flash kernel's backward is the slowest part of a CPU step at these lengths; plain products are not.
    """
    reduces = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()  # type: ignore[no-untyped-call]
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # for the CPU too
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(reduces)


def _schedule(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then linear decay to 0; factor in (0, 1] for 0-based `step`."""
    warmup = max(1, round(recipe.warmup * recipe.steps))
    return min((step + 1) / warmup, max(recipe.steps - step, 1) / max(recipe.steps - warmup, 1))


def _parameter_groups(model: BridgeTower, recipe: Recipe) -> list[dict[str, object]]:
    """Split by learning rate (towers against cross-modal encoder and heads) and by weight decay (matrices only)."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        tower = name.startswith(("text_tower.", "vision_tower."))
        groups.setdefault((tower, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.learning_rate * (1.0 if tower else recipe.new_factor),
            "weight_decay": recipe.weight_decay if matrix else 0.0,
        }
        for (tower, matrix), parameters in groups.items()
    ]


def _draw(similarity: Tensor, easy_share: float, generator: torch.Generator) -> Tensor:
    """One finite column for each row of logits [B, B]: evenly for the share `easy_share` of the rows, else by softmax.

    A row without any candidate gives a uniform one.
    """
    easy = torch.rand((len(similarity), 1), generator=generator) < easy_share
    weights = torch.where(easy & similarity.isfinite(), 0.0, similarity).softmax(dim=1)
    return torch.multinomial(weights.nan_to_num(1.0) + 1e-8 * similarity.isfinite(), 1, generator=generator)[:, 0]


def _save_state(model: BridgeTower, optimiser: torch.optim.Optimizer, step: int, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
    replace_file(file, lambda unfinished: torch.save(state, unfinished))


def _load_state(model: BridgeTower, optimiser: torch.optim.Optimizer, file: Path) -> int:
    state = torch.load(file, weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
