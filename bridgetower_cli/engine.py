"""From the name of a model to something that computes: found first, loaded only when there is work for it."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridgetower.errors import ModelError
from bridgetower_cli import render
from bridgetower_cli.settings import Settings

if TYPE_CHECKING:
    from bridgetower.encoder import Encoder, Runtime
    from bridgetower.preprocess import Preprocessing
    from bridgetower.records import Fingerprint
    from bridgetower.store import Store
    from bridgetower.weights import Checkpoint


@dataclass(frozen=True, slots=True)
class Engine:
    """A checkpoint that is on this machine, and what it will run on. No weights have been read."""

    checkpoint: "Checkpoint"
    runtime: "Runtime"

    @property
    def fingerprint(self) -> "Fingerprint":
        """Raises ModelError where the checkpoint has no contrastive head."""
        from bridgetower.encoder import fingerprint_of

        return fingerprint_of(self.checkpoint)

    @property
    def preprocessing(self) -> "Preprocessing":
        return self.checkpoint.preprocessing

    def load(self) -> "Encoder":
        """Read the weights. Raises ModelError."""
        from bridgetower.encoder import TorchEncoder

        return TorchEncoder(self.checkpoint, self.runtime)


def find(name: str, settings: Settings, *, preprocessing: str | None = None) -> Engine:
    """Find the model `name`, fetching it if need be; `preprocessing` is "hf", "plain", or None for that of the model.

    Raises ModelError, and UsageError for a device that is absent.
    """
    from bridgetower.encoder import choose_runtime
    from bridgetower.weights import DEMO, resolve

    runtime = choose_runtime(settings.device, settings.precision)  # first: it costs nothing, fetching may
    checkpoint = resolve(name, progress=render.talks_to_terminal(), say=render.say)
    if checkpoint.name == DEMO:
        render.say("note: the demo model knows drawn scenes only; of photographs it knows nothing")
    if preprocessing is not None:
        checkpoint = checkpoint.with_preprocessing(preprocessing)
    return Engine(checkpoint, runtime)


def of_index(store: "Store", settings: Settings) -> Engine:
    """Find the model that made an index. Raises ModelError, and StoreError where `--model` names another one."""
    made_by = store.fingerprint
    engine = find(settings.named_model or model_of(made_by), settings, preprocessing=made_by.preprocessing)
    store.check(engine.fingerprint)
    return engine


def model_of(fingerprint: "Fingerprint") -> str:
    """The name of the model that made an index. Raises ModelError where it was a folder that is gone."""
    name = fingerprint.model
    if os.path.isabs(name) and not os.path.isdir(name):
        raise ModelError(
            f"{name}: the index was made with the model in this folder, which is gone; say where it is now with --model"
        )
    return name


def tell_truncated(encoder: "Encoder", *texts: str) -> None:
    """Say which texts the model reads the beginning of only."""
    for text in texts:
        if encoder.truncates(text):
            render.say(f'note: the text is longer than the model reads; its end is left out: "{text[:40]}..."')
