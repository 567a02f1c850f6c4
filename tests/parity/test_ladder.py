"""The parity ladder: the same weights and inputs give what `transformers` gives, rung by rung from the pixels up.

The reference saves its checkpoint, our own loader reads it. The lowest rung that is red is where the fault is. A
difference is the largest one of a rung, relative to the largest value of that rung. (Pixels and token ids, the rungs
below these, are compared in tests/unit/pictures/test_preprocess.py and test_tokenizer.py; the whole chain in
test_chain.py.)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.load import load_model
from bridgetower.checkpoints.tensor_names import IGNORED_KEYS, to_hf
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.network.features import Fused, ImageFeatures, TextFeatures
from bridgetower.records import Head
from bridgetower.training.batch import Batch
from bridgetower.training.draws import generator_of, masked_texts, pairs
from bridgetower.training.losses import itc_loss, itm_loss, mlm_loss
from bridgetower.training.objective import backward
from bridgetower.training.recipe import Recipe
from tests.parity.conftest import VOCABULARY, inputs, make_reference, record, reference_config

# fp32, relative to the largest value of the rung. Products are summed in another order than in the reference.
TOLERANCE = {
    "text tower": 1e-5,
    "vision tower": 1e-5,
    "cross-modal encoder": 1e-5,
    "pooled": 1e-5,
    "itc": 1e-5,
    "itm": 1e-5,
    "mlm": 1e-5,
    "loss": 1e-5,
    "gradients": 5e-4,  # those of queries and keys are small differences of larger numbers
}

BASE: dict[str, Any] = {"patch": 16, "image": 96}
LARGE: dict[str, Any] = {"patch": 14, "image": 98}
SEPARATE: dict[str, Any] = {"share_cross_modal_transformer_layers": False}
CASES: dict[str, dict[str, Any]] = {
    "base add": {**BASE, "link_tower_type": "add"},
    "base scaled_add, unshared norm": {**BASE, "link_tower_type": "scaled_add", "vision": {"share_layernorm": False}},
    "base interpolate": {**BASE, "link_tower_type": "interpolate"},
    "base add separate": {**BASE, "link_tower_type": "add", **SEPARATE},
    "base tied words": {**BASE, "tie_word_embeddings": True},
    "large add": {
        **LARGE,
        "link_tower_type": "add",
        "text": {"num_hidden_layers": 4},
        "vision": {"num_hidden_layers": 4},
    },
    "large scaled_add separate": {**LARGE, "link_tower_type": "scaled_add", **SEPARATE, "num_hidden_layers": 3},
    "large interpolate separate": {**LARGE, "link_tower_type": "interpolate", **SEPARATE},
    "one cross-modal layer": {**BASE, "num_hidden_layers": 1},
    "more vision layers than are run": {**BASE, "vision": {"num_hidden_layers": 5}},
    "wider vision tower": {**BASE, **SEPARATE, "vision": {"hidden_size": 128}},
    "other epsilons": {
        **LARGE,
        "layer_norm_eps": 1e-2,
        "text": {"layer_norm_eps": 3e-2},
        "vision": {"layer_norm_eps": 2e-2},
    },
    "other pad token": {**BASE, "text": {"pad_token_id": 3, "type_vocab_size": 2}},
}


@dataclass(frozen=True)
class Run:
    """One batch through both networks."""

    ids: Tensor
    mask: Tensor
    pixels: Tensor
    pad_id: int
    theirs: Mapping[str, Tensor]  # every hidden state of the reference by its rung
    outputs: Mapping[Head, Any]
    references: Mapping[Head, Any]
    model: BridgeTower
    ours: Mapping[str, Tensor]
    text: TextFeatures
    image: ImageFeatures
    fused: Fused


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(", ", "-").replace(" ", "-"))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = reference_config(**CASES[request.param])
    # With separate projections the reference cannot run its contrastive head.
    heads = tuple(Head) if config.share_cross_modal_transformer_layers else (Head.ITM, Head.MLM)
    reference = make_reference(config, heads)
    model = load_model(resolve(str(reference.save(tmp_path_factory.mktemp("checkpoint")))))

    ids, mask, pixels = inputs(config.vision_config.image_size)
    pad_id = config.text_config.pad_token_id
    ids = ids.masked_fill(ids == pad_id, 7).masked_fill(~mask, pad_id)
    any_model = next(iter(reference.models.values()))
    theirs = record(reference_rungs(any_model.bridgetower))
    ours = record(our_rungs(model))
    with torch.no_grad():
        outputs = {head: run_reference(head, network, ids, mask, pixels) for head, network in reference.models.items()}
        text, image = model.encode_text(ids, mask), model.encode_image(pixels)
        fused = model.fuse(text, image)
    assert set(ours) == set(theirs)
    return Run(
        ids, mask, pixels, pad_id, dict(theirs), outputs, reference.models, model, dict(ours), text, image, fused
    )  # fmt: skip


def run_reference(head: Head, network: Any, ids: Tensor, mask: Tensor, pixels: Tensor) -> Any:
    return network(
        input_ids=ids,
        attention_mask=mask.long(),
        pixel_values=pixels,
        **({"return_loss": True} if head is Head.ITC else {"labels": labels(head, ids, mask)}),
    )


def labels(head: Head, ids: Tensor, mask: Tensor) -> Tensor:
    if head is Head.ITM:
        return torch.tensor([1, 0, 1])
    return ids.masked_fill(~mask | (torch.arange(ids.shape[1]) % 3 != 1), -100)


def reference_rungs(backbone: Any) -> dict[str, Any]:
    vision = backbone.vision_model.visual
    depth = len(backbone.text_model.encoder.layer)
    return {
        "text embeddings": backbone.text_model.embeddings,
        **numbered("text layer", backbone.text_model.encoder.layer),
        "vision embeddings": vision.ln_pre,
        **numbered("vision layer", vision.transformer.resblocks[:depth]),
        "text norm": backbone.cross_modal_text_layernorm,
        "image norm": backbone.cross_modal_image_layernorm,
        **numbered("text bridge", backbone.cross_modal_text_link_tower),
        **numbered("image bridge", backbone.cross_modal_image_link_tower),
        **numbered("text stream", backbone.cross_modal_text_layers),
        **numbered("image stream", backbone.cross_modal_image_layers),
    }


def our_rungs(model: BridgeTower) -> dict[str, Any]:
    return {
        "text embeddings": model.text_tower.dropout,
        **numbered("text layer", model.text_tower.layers),
        "vision embeddings": model.vision_tower.norm_pre,
        **numbered("vision layer", model.vision_tower.layers[: len(model.text_tower.layers)]),
        "text norm": model.text_norm,
        "image norm": model.image_norm,
        **numbered("text bridge", model.text_bridges),
        **numbered("image bridge", model.image_bridges),
        **numbered("text stream", model.text_stream),
        **numbered("image stream", model.image_stream),
    }


def numbered(name: str, modules: Any) -> dict[str, Any]:
    return {f"{name} {k}": module for k, module in enumerate(modules)}


def assert_rung(rung: str, ours: Tensor, theirs: Tensor, what: str = "") -> None:
    assert ours.shape == theirs.shape
    assert theirs.isfinite().all()
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    assert difference <= TOLERANCE[rung], f"{rung} {what}: differs by {difference:.1e}"


def assert_layers(rung: str, run: Run, belongs: Callable[[str], bool], transpose: bool = False) -> None:
    names = [name for name in run.theirs if belongs(name)]
    assert names
    for name in names:
        theirs = run.theirs[name]
        # The vision layers of the reference put tokens before the batch.
        assert_rung(rung, run.ours[name], theirs.transpose(0, 1) if transpose and "layer" in name else theirs, name)


def test_the_inputs_matter(run: Run) -> None:
    """A ladder on inputs that the network does not tell apart would hold anything."""
    assert not run.mask.all()
    for output in run.outputs.values():
        logits = output.logits.flatten(1)
        assert torch.cdist(logits, logits)[~torch.eye(len(logits), dtype=torch.bool)].min() > 0.05


def test_text_tower(run: Run) -> None:
    assert_layers("text tower", run, lambda name: name.startswith(("text embeddings", "text layer")))


def test_vision_tower(run: Run) -> None:
    assert_layers(
        "vision tower", run, lambda name: name.startswith(("vision embeddings", "vision layer")), transpose=True
    )


def test_bridges_and_cross_modal_layers(run: Run) -> None:
    assert_layers("cross-modal encoder", run, lambda name: any(part in name for part in ("norm", "bridge", "stream")))
    names = [name for name in run.ours if "bridge" in name]
    assert len(names) == 2 * (run.model.config.n_cross - 1)


def test_pooled_output(run: Run) -> None:
    with torch.no_grad():
        theirs = run.references[Head.ITM].bridgetower.get_cls_features(
            run.theirs[f"text stream {run.model.config.n_cross - 1}"],
            run.theirs[f"image stream {run.model.config.n_cross - 1}"],
        )
    assert_rung("pooled", run.fused.pooled, theirs)


def test_contrastive_vectors(run: Run) -> None:
    if Head.ITC not in run.outputs:
        assert run.text.itc is None and run.image.itc is None
        return
    theirs = run.outputs[Head.ITC]
    assert run.text.itc is not None and run.image.itc is not None
    with torch.no_grad():
        cross = run.model.itc_cross(run.fused)
        assert_rung("itc", run.text.itc, theirs.text_embeds, "text")
        assert_rung("itc", run.image.itc, theirs.image_embeds, "image")
        assert_rung("itc", cross, theirs.cross_embeds, "cross")
        assert_rung("itc", run.model.embed_text(run.ids, run.mask), theirs.text_embeds, "text alone")
        assert_rung("itc", run.model.embed_image(run.pixels), theirs.image_embeds, "image alone")
        loss = itc_loss(run.text.itc, run.image.itc, cross, run.model.logit_scale)
    assert_rung("loss", loss, theirs.loss)


def test_matching_logits(run: Run) -> None:
    theirs = run.outputs[Head.ITM]
    with torch.no_grad():
        logits = run.model.itm(run.fused)
    assert_rung("itm", logits, theirs.logits)
    assert_rung("loss", itm_loss(logits, labels(Head.ITM, run.ids, run.mask)), theirs.loss)


def test_word_logits(run: Run) -> None:
    theirs = run.outputs[Head.MLM]
    with torch.no_grad():
        logits = run.model.mlm(run.fused)
    assert_rung("mlm", logits, theirs.logits)
    assert_rung("loss", mlm_loss(logits, labels(Head.MLM, run.ids, run.mask)), theirs.loss)


RECIPE = Recipe(1, precision="fp32", micro_batch=2)  # two chunks of the three pictures
SEED, STEP = 1, 2
MASK_ID = 4
MASKABLE = (torch.arange(VOCABULARY) > MASK_ID).float()
TRUE_OF = torch.eye(3, dtype=torch.bool)


def our_step(head: Head, run: Run) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one head and its gradients, as the trainer computes them."""
    model = BridgeTower(run.model.config, frozenset({head})).eval()
    weights = run.model.state_dict()
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    batch = Batch(run.pixels, run.ids, run.mask, TRUE_OF)
    losses = backward(model, batch, RECIPE, mask_id=MASK_ID, maskable=MASKABLE, seed=SEED, step=STEP)
    found = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }
    return torch.tensor({Head.ITC: losses.itc, Head.ITM: losses.itm, Head.MLM: losses.mlm}[head]), found


def their_loss(head: Head, run: Run) -> Tensor:
    """The loss of the reference for what a step of ours draws."""
    network, keys = run.references[head], torch.arange(3)
    if head is Head.ITC:
        output = run_reference(head, network, run.ids, run.mask, run.pixels)
        of_images = output.image_embeds @ output.text_embeds.T * network.logit_scale.exp()
        return (3 * output.loss + F.cross_entropy(of_images, keys)) / 4  # the term that the reference lacks

    def of(ids: Tensor, texts: Tensor, pictures: Tensor, labels: Tensor) -> Tensor:
        given = {"attention_mask": run.mask[texts].long(), "pixel_values": run.pixels[pictures]}
        loss: Tensor = network(input_ids=ids, labels=labels, **given).loss
        return loss

    if head is Head.MLM:
        masked = masked_texts(run.ids, RECIPE, MASK_ID, MASKABLE, generator_of(SEED, STEP, "masks"))
        return of(masked.ids, masked.captions, masked.captions, masked.labels)
    drawn = pairs(torch.zeros(3, 3), TRUE_OF, keys, RECIPE.easy_share, generator_of(SEED, STEP, "pairs"))
    halves = [(drawn.is_true == label).nonzero()[:, 0] for label in (0, 1)]
    losses = [of(run.ids[t], t, p, drawn.is_true[h]) for h in halves for t, p in [(drawn.texts[h], drawn.pictures[h])]]
    return torch.stack(losses).mean()


def test_losses_and_gradients_of_a_step_for_every_parameter(run: Run) -> None:
    for head, network in run.references.items():
        their = their_loss(head, run)
        names, parameters = zip(*network.named_parameters(), strict=True)
        found = torch.autograd.grad(their, parameters, allow_unused=True, materialize_grads=True)
        theirs = {n: gradient for n, gradient in zip(names, found, strict=True) if not IGNORED_KEYS.fullmatch(n)}
        our, gradients = our_step(head, run)
        assert_rung("loss", our, their.detach(), str(head))
        ours = to_hf(gradients, run.model.config)
        of_other_heads = [theirs.pop(name) for name in theirs.keys() - ours.keys()]
        assert not any(bool(gradient.any()) for gradient in of_other_heads)
        reached = {name for name, gradient in ours.items() if bool(gradient.any())}
        assert reached <= theirs.keys()
        assert len(reached) > 0.7 * len(theirs)
        largest = max(float(gradient.abs().max()) for gradient in theirs.values())
        for name, gradient in theirs.items():
            assert gradient.isfinite().all()
            # Some gradients are zero but for rounding, as those of the biases of keys are.
            scale = max(float(gradient.abs().max()), 1e-2 * largest)
            difference = float((ours[name] - gradient).abs().max()) / scale
            assert difference <= TOLERANCE["gradients"], f"{head} {name}: differs by {difference:.1e}"


def test_what_is_not_kept_of_the_last_layer_changes_nothing_else(run: Run) -> None:
    with torch.no_grad():
        first = run.model.fuse(run.text, run.image, keep_text=1, keep_image=1)
        words = run.model.fuse(run.text, run.image, keep_image=1)
        assert first.text.shape[1] == first.image.shape[1] == words.image.shape[1] == 1
        assert_rung("itm", run.model.itm(first), run.outputs[Head.ITM].logits)
        assert_rung("mlm", run.model.mlm(words), run.outputs[Head.MLM].logits)


def test_contrastive_vectors_with_separate_projections(tmp_path: Path) -> None:
    """The reference breaks there; by its own parts, the projection of the last layer is the one to use."""
    config = reference_config(**BASE, **SEPARATE)
    saved = make_reference(config, (Head.ITC,))
    model = load_model(resolve(str(saved.save(tmp_path))))
    reference = saved.models[Head.ITC]
    _, _, pixels = inputs(96)
    backbone = reference.bridgetower
    hidden = record({"last": backbone.vision_model.visual.transformer.resblocks[-1]})
    with torch.no_grad():
        backbone(input_ids=torch.tensor([[0, 9, 2]] * 3), pixel_values=pixels)
        normed = backbone.vision_model.visual.forward_post(hidden["last"])
        projected = backbone.cross_modal_image_transform[-1](normed) + backbone.token_type_embeddings.weight[1]
        theirs = F.normalize(reference.itc_image_head(projected[:, 0]), dim=-1)
        assert_rung("itc", model.embed_image(pixels), theirs)
        itc = model.encode_image(pixels).itc
        assert itc is not None
        assert_rung("itc", itc, theirs)
