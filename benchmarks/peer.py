"""The peer: `transformers`, as its documentation uses it and as an expert would.

Documented: `BridgeTowerProcessor`, then the class for the task on one picture and one text, in fp32; each class runs
the whole network. Expert: many at once, in bf16 where that is faster, and of the network the parts that its classes
let one call, from the outside and without rewriting them. Either runs without gradients, which is kinder to the
documented use than the examples in the documentation are.

Each function loads what it needs and returns what is to be timed. Preparing pixels is not: both sides get them ready.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from benchmarks.harness import Array
from bridgetower.training.batch import Batch
from bridgetower.training.draws import generator_of, key_pictures, masked_texts
from bridgetower.training.draws import pairs as draw_pairs
from bridgetower.training.losses import contrastive_loss, itm_loss, mlm_loss
from bridgetower.training.recipe import Recipe

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Run = Callable[[], Array]


@cache
def load(task: str, folder: Path, precision: str, device: str) -> Any:
    kind = getattr(_library(), f"BridgeTowerFor{task}")
    return kind.from_pretrained(folder, dtype=DTYPES[precision]).to(device).eval()


@cache
def processor(folder: Path) -> Any:
    return _library().BridgeTowerProcessor.from_pretrained(folder)


@cache
def _library() -> Any:
    """Imported by the contenders that use it only: memory.py runs each of them alone."""
    import transformers

    transformers.logging.set_verbosity_error()  # it reports the heads of the checkpoint that a class does not use
    transformers.logging.disable_progress_bar()
    return transformers


def embed_documented(folder: Path, device: str, pictures: Sequence[Image.Image], text: str) -> Run:
    """Vectors [B, E] of pictures, one full forward each."""
    model = load("ContrastiveLearning", folder, "fp32", device)
    pairs = _pairs(folder, device, pictures, text)
    return _timed(lambda: torch.cat([model(**pair).image_embeds for pair in pairs]))


def embed_expert(folder: Path, device: str, precision: str, pictures: Sequence[Image.Image]) -> Run:
    """Vectors [B, E] of pictures: the vision tower alone, on all at once, and then what the class does with it."""
    model = load("ContrastiveLearning", folder, precision, device)
    network = model.bridgetower
    pixels = _pixels(folder, device, pictures)

    def run() -> Tensor:
        first = network.vision_model(pixels)[-1][:, 0]  # the last layer, normed, its class token: [B, width]
        projected = network.cross_modal_image_transform(first) + network.token_type_embeddings.weight[1]
        return normalize(model.itc_image_head(projected).float(), dim=-1)

    return _timed(run)


def match_documented(folder: Path, device: str, pictures: Sequence[Image.Image], text: str) -> Run:
    """Matching logits [B, 2] of one text with each picture, one full forward each."""
    model = load("ImageAndTextRetrieval", folder, "fp32", device)
    pairs = _pairs(folder, device, pictures, text)
    return _timed(lambda: torch.cat([model(**pair).logits for pair in pairs]))


def match_expert(folder: Path, device: str, precision: str, pictures: Sequence[Image.Image], text: str) -> Run:
    """Matching logits [B, 2] of one text with each picture, all in one forward."""
    model = load("ImageAndTextRetrieval", folder, precision, device)
    batch = processor(folder)(list(pictures), [text] * len(pictures), return_tensors="pt").to(device)
    return _timed(lambda: model(**batch).logits)


def embed_text_documented(folder: Path, device: str, picture: Image.Image, texts: Sequence[str]) -> Run:
    """Vectors [Q, E] of texts, one full forward each, with a picture because the class asks for one."""
    model = load("ContrastiveLearning", folder, "fp32", device)
    pixels = _pixels(folder, device, [picture])

    def run() -> Tensor:
        tokens = (processor(folder).tokenizer(text, return_tensors="pt").to(device) for text in texts)
        return torch.cat([model(**one, pixel_values=pixels).text_embeds for one in tokens])

    return _timed(run)


def embed_text_expert(folder: Path, device: str, precision: str, texts: Sequence[str], batch: int) -> Run:
    """Vectors [Q, E] of texts: the text tower alone, on `batch` of them at once."""
    model = load("ContrastiveLearning", folder, precision, device)

    def embed(some: Sequence[str]) -> Tensor:
        tokens = processor(folder).tokenizer(list(some), padding=True, return_tensors="pt").to(device)
        hidden = model.bridgetower.text_model(**tokens).last_hidden_state
        return normalize(model.itc_text_head(hidden[:, 0]).float(), dim=-1)

    return _timed(lambda: torch.cat([embed(texts[i : i + batch]) for i in range(0, len(texts), batch)]))


class Trained(nn.Module):
    """Its backbone and the heads of its three classes, to train.

    The backbone runs on the captions with their pictures, on the false pairs and on the masked captions. The losses,
    the masks and the pairs that are drawn are those of our training.
    """

    def __init__(self, folder: Path, device: torch.device, recipe: Recipe, mask_id: int) -> None:
        super().__init__()
        self.itc = load("ContrastiveLearning", folder, "fp32", str(device))
        self.backbone = self.itc.bridgetower
        self.itm = load("ImageAndTextRetrieval", folder, "fp32", str(device)).itm_score
        self.mlm = load("MaskedLM", folder, "fp32", str(device)).mlm_score
        load.cache_clear()  # and with it the backbones of the two
        self.recipe, self.mask_id = recipe, mask_id
        frozen = {"text": recipe.freezes("text"), "vision": recipe.freezes("vision")}
        self.frozen = [getattr(self.backbone, f"{name}_model") for name, fixed in frozen.items() if fixed]
        for tower in self.frozen:
            tower.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for tower in self.frozen:
            tower.eval()
        return self

    def losses(self, batch: Batch, seed: int, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """ITC, ITM and MLM of a batch with one caption for each picture."""
        captions, recipe, scale = batch.true_of.shape[1], self.recipe, self.itc.logit_scale.exp()
        keys = key_pictures(batch.true_of, generator_of(seed, step, "keys"))
        words = torch.ones(self.itc.config.text_config.vocab_size)
        masked = masked_texts(batch.ids.cpu(), recipe, self.mask_id, words, generator_of(seed, step, "masks"))
        pixels = batch.pixels.to(batch.ids.device)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            true = self.backbone(batch.ids, batch.mask.long(), pixel_values=pixels, output_hidden_states=True)
            text, image, cross = self._vectors(true)
            logits = (text @ image.T * scale).detach().float().cpu()
            drawn = draw_pairs(logits, batch.true_of, keys, recipe.easy_share, generator_of(seed, step, "pairs"))
            texts, pictures = drawn.texts[captions:], drawn.pictures[captions:]
            false = self.backbone(batch.ids[texts], batch.mask[texts].long(), pixel_values=pixels[pictures])
            matched = self.itm(torch.cat([true.pooler_output, false.pooler_output]))
            hidden = self.backbone(masked.ids, batch.mask.long(), pixel_values=pixels)
            guessed = self.mlm(hidden.text_features)
        itc = contrastive_loss(text, image, cross, scale, batch.true_of, keys)
        itm = itm_loss(matched, drawn.is_true.to(matched.device), drawn.weights.to(matched.device))
        return itc, itm, mlm_loss(guessed, masked.labels.to(guessed.device))

    def _vectors(self, output: Any) -> tuple[Tensor, Tensor, Tensor]:
        """ITC vectors of the texts, the pictures and the pairs, as the class for them has it."""
        texts, images, _ = output.hidden_states
        first = self.backbone.vision_model.visual.forward_post(images[-1])[:, 0]
        projected = self.backbone.cross_modal_image_transform(first) + self.backbone.token_type_embeddings.weight[1]
        vectors = (
            self.itc.itc_text_head(texts[-1][:, 0]),
            self.itc.itc_image_head(projected),
            self.itc.itc_cross_modal_head(output.pooler_output),
        )
        text, image, cross = (normalize(vector.float(), dim=-1) for vector in vectors)
        return text, image, cross


def _pairs(folder: Path, device: str, pictures: Sequence[Image.Image], text: str) -> list[Any]:
    return [processor(folder)(picture, text, return_tensors="pt").to(device) for picture in pictures]


def _pixels(folder: Path, device: str, pictures: Sequence[Image.Image]) -> Tensor:
    pixels: Tensor = processor(folder).image_processor(list(pictures), return_tensors="pt").pixel_values
    return pixels.to(device)


def _timed(run: Callable[[], Tensor]) -> Run:
    """Without gradients, and to the end: the result is on the CPU."""

    @torch.inference_mode()
    def finished() -> Array:
        return np.asarray(run().float().cpu())

    return finished
