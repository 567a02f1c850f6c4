"""Train the demo model, from nothing or from a model, on scenes drawn as it goes.

    python examples/train_demo.py --out runs/demo                 # goes on where it was stopped
    python examples/train_demo.py --out runs/demo --diet binding  # for 500 steps, somewhere on the way
    python examples/train_demo.py --out runs/demo --export core/bridgetower/assets/demo

More training for a model, as long as there is time: the rate stays until the run is stopped, and falls when it goes on
with an end (here at step 1,700, if it was stopped at 1,300):

    python examples/train_demo.py --out runs/more --init demo --steps 100000 --decay 400
    python examples/train_demo.py --out runs/more --init demo --steps 1700 --decay 400

Every batch is made from its own number, so a run that was interrupted draws what it would have drawn. Why there is
more than one diet: docs/decisions/2026-11-20-binding.md.
"""

import argparse
import random
import shutil
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend
from torch.utils.data import DataLoader, Dataset

from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.load import load_model
from bridgetower.checkpoints.save import save
from bridgetower.checkpoints.tokenizer import SPECIAL_TOKENS, Tokenizer
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.network.config import ModelConfig, TextConfig, VisionConfig
from bridgetower.pictures.preprocess import Preprocessing, preprocess
from bridgetower.training.batch import Batch
from bridgetower.training.optimiser import make_optimiser
from bridgetower.training.recipe import Recipe
from bridgetower.training.run.log import RunLog
from bridgetower.training.state import RunState
from bridgetower.training.trainer import train
from examples.scenes.captions import foil, phrase, strange, terse
from examples.scenes.compose import Claim, Scene, bare, near_miss, part_of, random_scene
from examples.scenes.masks import MaskedClaim, mask
from examples.scenes.pictures import draw
from examples.scenes.vocabulary import BACKGROUNDS, COLOURS, NUMBERS, PLACES

SEED = 20261120
BATCH = 128
QUERIES = 128  # more texts of the scenes of a batch: half of them short, the others with words hidden
OTHERS = 256  # texts of scenes that are not in the batch
FAMILY = 4  # a scene and its near misses stand in one batch: the negatives that matter
IN_FAMILIES = BATCH // 2  # the other scenes stand alone, so that there are more things in a batch
SAVE_EVERY = 120.0  # seconds
SHOWN = ("step", "itc", "itm", "mlm", "learning_rate", "seconds")
IMAGE_PX = 96
MAX_TOKENS = 64
PREPROCESSING = Preprocessing(shortest_edge=IMAGE_PX, crop_size=IMAGE_PX)
FUNCTION_WORDS = frozenset("a an the of to there is are image picture photo sitting chilling waiting".split())


@dataclass(frozen=True)
class Diet:
    """What the batches of a phase are made of."""

    kinds: Mapping[str, int]  # how often each kind of scene is
    exchange: float  # how many near misses of a pair are the pair the other way round
    recount: float  # how many near misses of things in a place are another number of them
    rename: float  # how many of the other near misses are another thing
    painted: float  # how many scenes are of things that are drawn in a colour
    relation_weight: float  # how readily a relation is the word that is masked; a noun has 1
    number_weight: float


DIETS = {
    "usual": Diet({"alone": 22, "place": 34, "sides": 36, "window": 8}, 0.2, 0.2, 0.3, 0.12, 1.5, 3.0),
    "binding": Diet({"alone": 5, "place": 6, "sides": 87, "window": 2}, 0.7, 0.2, 0.0, 0.12, 30.0, 4.0),
    "refining": Diet({"alone": 20, "place": 36, "sides": 34, "window": 10}, 0.45, 0.45, 0.4, 0.2, 3.0, 4.0),
    "counting": Diet({"alone": 8, "place": 70, "sides": 20, "window": 2}, 0.3, 0.7, 0.0, 0.12, 4.0, 30.0),
}
RELATION_WORDS = frozenset("left right above over below under".split())
# Words that are guessed right nearly always: colours, places, backdrops.
EASY_WORDS = frozenset(" ".join([*COLOURS, *PLACES, *chain.from_iterable(BACKGROUNDS.values())]).split())
# Shapes of the drawn pictures (width, height): the resize of preprocessing, which distorts some, is then part of what
# is learned. A shape between two that were practised can fail.
_LONGER = (136, 144, 154, 160, 171, 180, 192, 205, 214, 227)
CANVASES = ((128, 128), *((longer, 128) for longer in _LONGER), *((128, longer) for longer in _LONGER))


def random_text(scene: Scene, rng: random.Random) -> tuple[str, Claim]:
    """A text that is true of the scene, and what it claims: half of them say everything, half of them less."""
    claim = scene.claim()
    if rng.random() < 0.5:
        claim = part_of(claim, rng)
    return phrase(claim, rng), claim


def other_text(rng: random.Random, diet: Diet) -> tuple[str, Claim | MaskedClaim]:
    """A text of a scene that is not in the batch, most of them short, some with a thing that is never drawn."""
    claim = random_scene(rng, held_out=False, kinds=diet.kinds, painted=0.3).claim()
    if rng.random() < 0.3:
        claim = strange(claim, rng)
    less = bare(claim, rng) if rng.random() < 0.5 else part_of(claim, rng)
    claim = less if rng.random() < 0.75 else claim
    text = phrase(claim, rng)
    return mask(text, claim, rng) if rng.random() < 0.15 else (_as_typed(text, rng), claim)


def _as_typed(text: str, rng: random.Random) -> str:
    return terse(text) if rng.random() < 0.25 else text


def random_query(scene: Scene, rng: random.Random) -> tuple[str, Claim | MaskedClaim]:
    """A short text that is true of the scene, or one with a word or two hidden, and what it claims."""
    claim = bare(scene.claim(), rng)
    text = phrase(claim, rng)
    if rng.random() < 1 / 2:
        return _as_typed(text, rng), claim
    if rng.random() < 0.8:
        text, claim = random_text(scene, rng)
    return mask(text, claim, rng, words=1 if rng.random() < 0.75 else 2)


class Scenes(Dataset[Batch]):
    """Batch number i, drawn from its own seed."""

    def __init__(self, tokenizer: Tokenizer, steps: int, diet: Diet, seed: int) -> None:
        self.tokenizer, self.steps, self.diet, self.seed = tokenizer, steps, diet, seed

    def __len__(self) -> int:
        return self.steps

    def _near_miss(self, scene: Scene, rng: random.Random) -> Scene:
        return near_miss(scene, rng, exchange=self.diet.exchange, recount=self.diet.recount, rename=self.diet.rename)

    def __getitem__(self, index: int) -> Batch:
        rng = random.Random(self.seed * 1_000_003 + index)
        scenes: list[Scene] = []
        while len(scenes) < BATCH:
            scenes.append(random_scene(rng, held_out=False, kinds=self.diet.kinds, painted=self.diet.painted))
            if len(scenes) <= IN_FAMILIES:
                scenes += [self._near_miss(scenes[-1], rng) for _ in range(FAMILY - 1)]
        pixels = np.stack([preprocess(draw(scene, rng.choice(CANVASES), rng), PREPROCESSING) for scene in scenes])
        said: list[tuple[str, Claim | MaskedClaim]] = [random_text(scene, rng) for scene in scenes]
        said += [random_query(scene, rng) for scene in rng.choices(scenes, k=QUERIES)]
        said += [foil(scene, rng, exchange=self.diet.exchange, recount=self.diet.recount) for scene in scenes]
        said += [other_text(rng, self.diet) for _ in range(OTHERS)]
        texts, claims = zip(*said, strict=True)
        ids, tokens = (torch.from_numpy(array) for array in self.tokenizer.encode_batch(texts))
        true_of = torch.tensor([[claim.true_of(scene) for scene in scenes] for claim in claims])
        return Batch(torch.from_numpy(pixels), ids, tokens, true_of)


def train_tokenizer(folder: Path) -> None:
    """A byte-level BPE in which every word of the captions is one token, so that `<mask>` can stand for it."""
    rng = random.Random(SEED)
    texts = []
    for _ in range(60_000):
        scene = random_scene(rng, held_out=False)
        texts += [random_text(scene, rng)[0], foil(scene, rng)[0]]
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=8,
        special_tokens=[AddedToken(t, lstrip=t == "<mask>", normalized=False) for t in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))


def maskable_words(tokenizer: Tokenizer, diet: Diet) -> torch.Tensor:
    """float [V]: the words that a picture can tell, the hardest the most. An article teaches nothing about pictures."""
    words = [tokenizer.word(token).lower() for token in range(tokenizer.vocab_size)]
    return torch.tensor([
        0.0 if not word.isalnum() or word in FUNCTION_WORDS
        else diet.relation_weight if word in RELATION_WORDS
        else diet.number_weight if word in NUMBERS
        else 0.3 if word in EASY_WORDS
        else 1.0
        for word in words
    ])  # fmt: skip


def demo_config(vocab_size: int) -> ModelConfig:
    return ModelConfig(
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        contrastive_hidden_size=128,
        text=TextConfig(
            vocab_size=vocab_size,
            hidden_size=128,
            num_hidden_layers=6,
            num_attention_heads=2,
            intermediate_size=512,
            hidden_dropout_prob=0.0,  # every batch is new: there is nothing to overfit
            attention_probs_dropout_prob=0.0,
            max_position_embeddings=MAX_TOKENS + 2,
        ),
        vision=VisionConfig(hidden_size=128, num_hidden_layers=6, patch_size=16, image_size=IMAGE_PX),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the state of the run")
    parser.add_argument("--steps", type=int, default=4350)
    parser.add_argument("--init", help="begin with this model and its tokenizer, not from nothing")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=200, help="steps at the beginning in which the rate rises")
    parser.add_argument("--decay", type=int, help="steps at the end in which the rate falls; default: all but --warmup")
    parser.add_argument("--mlm-weight", type=float, default=1.0, help="of the loss of masked words")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--diet", choices=DIETS, default="usual")
    parser.add_argument("--export", type=Path, help="write what the run has reached as a checkpoint, and stop")
    args = parser.parse_args()
    if args.export and not (args.out / "state.pt").is_file():
        parser.error(f"{args.out}: nothing to export: no state of a run in it")

    start = resolve(args.init) if args.init else None
    if not (args.out / "tokenizer.json").exists():
        if start:
            args.out.mkdir(parents=True, exist_ok=True)
            shutil.copy(start.folder / "tokenizer.json", args.out)
        else:
            train_tokenizer(args.out)
    tokenizer = Tokenizer.from_folder(args.out, MAX_TOKENS)
    if start:
        model = load_model(start)
    else:
        model = BridgeTower(demo_config(tokenizer.vocab_size)).initialise(torch.Generator().manual_seed(args.seed))
    parameters = sum(p.numel() for p in model.parameters())
    sys.stderr.write(f"{parameters / 1e6:.2f}M parameters, vocabulary {tokenizer.vocab_size}\n")
    diet, state = DIETS[args.diet], RunState(args.out / "state.pt")
    recipe = Recipe(
        steps=args.steps, learning_rate=args.learning_rate, new_factor=1.0, warmup=args.warmup / args.steps,
        decay=1.0 if args.decay is None else args.decay / args.steps,
        mask_share=0.5, maskings=2.0, single_share=0.5, easy_share=0.5, mlm_weight=args.mlm_weight,
    )  # fmt: skip
    if args.export:
        step = state.load(model, make_optimiser(model, recipe))
        save(model, args.export, preprocessing=PREPROCESSING, tokenizer_from=args.out, dtype=torch.float16)
        sys.stderr.write(f"{args.export}: step {step}\n")
        return
    with ExitStack() as opened:
        log: RunLog | None = None

        def batches(step: int) -> Iterable[Batch]:
            nonlocal log
            log = opened.enter_context(RunLog(args.out / "log.jsonl", args.out / "tensorboard", step, step))
            dataset = Scenes(tokenizer, args.steps, diet, args.seed)
            left = range(step, args.steps)
            return DataLoader(dataset, batch_size=None, sampler=left, num_workers=1, prefetch_factor=8)

        for report in train(
            model, batches, recipe, mask_id=tokenizer.mask_id, maskable=maskable_words(tokenizer, diet),
            seed=args.seed, state=state, save_every=SAVE_EVERY,
        ):  # fmt: skip
            assert log is not None
            line = report.as_json()
            log.write("step", line)
            if report.step % 20 == 0:
                sys.stderr.write(" ".join(f"{name} {line[name]:.3g}" for name in SHOWN) + "\n")


if __name__ == "__main__":
    main()
