"""Train a BridgeTower: contrastive, matching and masked-language losses together, from one pass over each tower.

    Batch -> towers once -> ITC over the batch
                         -> fuse(positives | hard pictures | hard texts | foils | queries) -> ITM
                         -> fuse(masked texts)                                             -> MLM

Hard negatives are drawn by ITC similarity, as in the retrieval recipe of the paper (AAAI'23, section 4.3 and the
released training code), because matching has to separate the pairs that recall confuses. `Batch.true_of` states which
texts are true of which pictures, so that no true pair is drawn as a negative.
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
    """The settings of a training run. Defaults follow the retrieval fine-tuning recipe of the paper."""

    steps: int
    learning_rate: float = 5e-6
    new_factor: float = 5.0  # on the learning rate of the cross-modal encoder and the heads
    warmup: float = 0.05  # share of the steps
    decay: float = (
        1.0  # share of the steps, at the end, in which the rate falls to 0; never more than all after warm-up
    )
    weight_decay: float = 0.01  # not on biases, norms and other vectors
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    clip_norm: float = 1.0
    mask_share: float = 0.15  # of the tokens of a text that may be masked
    maskings: float = 1.0  # masked copies per text: 0.5 masks the first half of a batch, 2.0 each text twice
    single_share: float = 0.0  # of the masked copies in which only one word is masked
    easy_share: float = 0.0  # of the ITM negatives, drawn less strictly by ITC: easy pairs have to be learned, too
    mlm_weight: float = 1.0  # of the MLM loss in the sum; ITC and ITM have 1
    bf16: bool = True  # autocast; the weights stay fp32


@dataclass(slots=True)
class Batch:
    """B pictures, a text for each that is true of it, and all other true pairs among them."""

    pixels: Tensor  # float32 [B, 3, H, W], preprocessed
    ids: Tensor  # int64 [B, T]
    mask: Tensor  # bool [B, T], True = token
    true_of: Tensor  # bool [B, B], [i, j]: text i is true of picture j; the diagonal is True
    foil_ids: Tensor | None = None  # int64 [B, T]: a text known to be false of picture i; None if there are none
    foil_mask: Tensor | None = None  # bool [B, T]
    # More texts, for ITM alone: queries, short ones or with `<mask>` in them. Each is true of at least one picture.
    query_ids: Tensor | None = None  # int64 [Q, T]
    query_mask: Tensor | None = None  # bool [Q, T]
    query_true_of: Tensor | None = None  # bool [Q, B]


@dataclass(frozen=True, slots=True)
class StepReport:
    """The result of one optimisation step; losses are means over the batch, in nats."""

    step: int  # finished steps, from 1
    itc: float
    itm: float
    mlm: float
    learning_rate: float


def losses(
    model: BridgeTower, batch: Batch, recipe: Recipe, mask_id: int, maskable: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ITC, ITM and MLM losses of one batch, scalars; on the CPU only.

    `mask_id` is the id of `<mask>`; `maskable` float [V] is the weight of a word in choosing masks, 0 = never.
    """
    b = len(batch.ids)
    own = torch.arange(b)
    masked = torch.arange(max(1, round(recipe.maskings * b))) % b  # the rows that are masked
    share = torch.full((len(masked),), recipe.mask_share)
    share[: round(recipe.single_share * len(masked))] = 0.0  # rows of the first copy come first
    masked_ids, labels = mask_tokens(batch.ids[masked], share, mask_id, maskable, generator)

    id_parts, mask_parts = [batch.ids, masked_ids], [batch.mask, batch.mask[masked]]
    if batch.foil_ids is not None and batch.foil_mask is not None:
        id_parts.append(batch.foil_ids)
        mask_parts.append(batch.foil_mask)
    if batch.query_ids is not None and batch.query_mask is not None:
        id_parts.append(batch.query_ids)
        mask_parts.append(batch.query_mask)
    text = model.encode_text(torch.cat(id_parts), torch.cat(mask_parts))
    image = model.encode_image(batch.pixels)
    assert text.itc is not None and image.itc is not None
    text_itc, image_itc = text.itc[:b], image.itc

    foils = b + len(masked) + own if batch.foil_ids is not None else own[:0]
    queries = b + len(masked) + len(foils) + torch.arange(0 if batch.query_ids is None else len(batch.query_ids))
    with torch.no_grad():
        similarity = (text_itc @ image_itc.T).float() * model.logit_scale
        similarity = similarity.masked_fill(batch.true_of, float("-inf"))
        # [B] each: a false picture for each text, and a false text for each picture.
        false_image = _draw_negatives(similarity, recipe.easy_share, generator)
        false_text = _draw_negatives(similarity.T, recipe.easy_share, generator)
        # [Q] each: a picture that a query is true of, and one that it is false of.
        query_true = query_false = own[:0]
        if batch.query_true_of is not None:
            query_true = torch.multinomial(batch.query_true_of.float(), 1, generator=generator)[:, 0]
            similarity = (text.itc[queries] @ image_itc.T).float() * model.logit_scale
            similarity = similarity.masked_fill(batch.query_true_of, float("-inf"))
            query_false = _draw_negatives(similarity, recipe.easy_share, generator)

    text_index = torch.cat([own, queries, own, false_text, foils, queries])
    image_index = torch.cat([own, query_true, false_image, own, own[: len(foils)], query_false])
    pairs = model.fuse(text.select(text_index), image.select(image_index), keep_text=1, keep_image=1)
    # Equal weights for true and false pairs, so that the ITM probability has a prior of 1/2.
    logits = model.itm(pairs).float()  # [3B or 4B, 2], and two for each query
    true = b + len(queries)
    is_true = (torch.arange(len(logits)) < true).long()
    itm = (itm_loss(logits[:true], is_true[:true]) + itm_loss(logits[true:], is_true[true:])) / 2

    cross_itc = model.itc_cross(Fused(pairs.text[:b], pairs.image[:b], pairs.pooled[:b]))
    itc = contrastive_loss(text_itc, image_itc, cross_itc, model.logit_scale, batch.true_of)

    masked_pairs = model.fuse(text.select(b + torch.arange(len(masked))), image.select(masked), keep_image=1)
    mlm = mlm_loss(model.mlm(masked_pairs).float(), labels)
    return itc, itm, mlm


def contrastive_loss(text: Tensor, image: Tensor, cross: Tensor, logit_scale: Tensor, true_of: Tensor) -> Tensor:
    """Mean cross entropy of text-image (both ways), text-cross and image-cross, each [B, E] with unit rows.

    The reference lacks image-text; we add it, because images are queries, too. `true_of` bool [B, B] removes pairs that
    are true by chance from the denominators, so that a text that is true of several pictures is not penalised.
    """
    by_chance = true_of & ~torch.eye(len(text), dtype=torch.bool)
    image_text = contrast(image, text, logit_scale, by_chance.T)
    return (3 * itc_loss(text, image, cross, logit_scale, by_chance) + image_text) / 4


def mask_tokens(
    ids: Tensor, share: Tensor, mask_id: int, maskable: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Replace one maskable token of each text, if it has any, and a share of the others, by `<mask>`.

    `ids` int64 [B, T]; `share` float [B] in [0, 1]; `maskable` float [V]: the first token is drawn in proportion to it,
    the others uniformly from all above 0. Returns masked ids and labels, int64 [B, T]; a label is -100 where nothing
    was masked. Unlike in BERT (80/10/10), masked tokens are never kept or replaced by random ones, because our task is
    to fill visible masks.
    """
    weights = maskable[ids]  # float [B, T]
    words = weights > 0
    one = torch.multinomial(weights + 1e-9, 1, generator=generator)  # [B, 1]; `& words` below drops empty rows
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
    """Train the model in place, on the CPU only, for `recipe.steps` steps, and yield a report after each.

    `mask_id` and `maskable` are as for `losses`; `batches(step)` returns the batches from `step` on. With a
    `state_file`, model, optimiser and step are saved there every `save_every` steps and at the end, and a later call
    resumes from it.
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
        with _plain_attention(), torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
            itc, itm, mlm = losses(model, batch, recipe, mask_id, maskable, generator)
        optimiser.zero_grad(set_to_none=True)
        (itc + itm + recipe.mlm_weight * mlm).backward()  # type: ignore[no-untyped-call]
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
def _plain_attention() -> Iterator[None]:
    """Compute attention as two plain products, in bf16 if the input is bf16.

    At these lengths, the backward pass of the flash kernel would be the slowest part of a step on the CPU.
    """
    reduces = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()  # type: ignore[no-untyped-call]
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # for the CPU too
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(reduces)


def _schedule(step: int, recipe: Recipe) -> float:
    """Return the factor on the learning rate, in (0, 1], for 0-based `step`: linear warm-up, 1, linear decay to 0."""
    warmup = max(1, round(recipe.warmup * recipe.steps))
    decay = max(1, min(round(recipe.decay * recipe.steps), recipe.steps - warmup))
    return min((step + 1) / warmup, 1.0, max(recipe.steps - step, 1) / decay)


def _parameter_groups(model: BridgeTower, recipe: Recipe) -> list[dict[str, object]]:
    """Group parameters by learning rate (towers, or cross-modal encoder and heads) and weight decay (matrices only)."""
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


def _draw_negatives(similarity: Tensor, easy_share: float, generator: torch.Generator) -> Tensor:
    """Draw a column with a finite logit for each row of [B, B'], by softmax.

    In `easy_share` of the rows the logits first shrink by a factor between 0, where every column is equally likely, and
    1. In a row without finite logits every column is equally likely.
    """
    easy, factor = torch.rand((2, len(similarity), 1), generator=generator)
    finite = similarity.isfinite()
    softened = torch.where(finite & (easy < easy_share), similarity * factor, similarity)
    return torch.multinomial(softened.softmax(dim=1).nan_to_num(1.0) + 1e-8 * finite, 1, generator=generator)[:, 0]


def _save_state(model: BridgeTower, optimiser: torch.optim.Optimizer, step: int, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
    replace_file(file, lambda unfinished: torch.save(state, unfinished))


def _load_state(model: BridgeTower, optimiser: torch.optim.Optimizer, file: Path) -> int:
    state = torch.load(file, weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
