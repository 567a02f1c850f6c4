"""From the name of a model to something that computes: found first, loaded only when there is work for it."""

from typing import TYPE_CHECKING

from bridgetower.records import FOREIGN
from bridgetower_cli import render
from bridgetower_cli.settings import Settings

if TYPE_CHECKING:
    from bridgetower.features import FeatureCache
    from bridgetower.library import Model
    from bridgetower.protocol import Judge, RecallEncoder
    from bridgetower.records import Fingerprint
    from bridgetower.store import Store


def find(name: str, settings: Settings, *, preprocessing: str | None = None, fetch: bool = True) -> "Model":
    """Find the model `name`, fetching it if need be; `preprocessing` is "hf", "plain", or None for that of the model.

    Without `fetch` it has to be on this machine: a name that nobody gave brings nothing over the network. Raises
    ModelError, and UsageError for a device that is absent.
    """
    from bridgetower.library import Model

    model = Model(
        name,
        device=settings.device,
        precision=settings.precision,
        preprocessing=preprocessing,
        fetch=fetch,
        progress=render.talks_to_terminal(),
        say=render.say,
    )
    return model


def of_index(store: "Store", settings: Settings) -> "Model":
    """Find the model that made an index. Raises ModelError, and StoreError where `--model` names another one, or none
    of ours made it."""
    from bridgetower.directory import require_ours

    require_ours(store.directory, store.fingerprint)
    model = that_made(store.fingerprint, settings)
    store.check(model.fingerprint)
    return model


def that_made(index: "Fingerprint", settings: Settings, *, preprocessing: str | None = None) -> "Model":
    """Find the model of an index where `--model` says that it is, or by the name that the index has.

    That name is fetched only if BT_MODEL says it, too. `preprocessing` is that of the index if it is None. Raises as
    `find` does.
    """
    name = settings.named_model or index.model
    preprocessing = preprocessing or index.preprocessing
    return find(name, settings, preprocessing=preprocessing, fetch=name == settings.given_model)


def judge_of(store: "Store", settings: Settings) -> "Model":
    """Find a model that only verifies what a vector has recalled: the one that `--model` names, whatever it is, else
    that of the index, else, where its vectors are foreign, the one for new indexes. Raises ModelError."""
    if settings.named_model is None and store.fingerprint.precision_family != FOREIGN:
        return of_index(store, settings)
    return find(settings.model, settings)


def feature_cache(store: "Store", settings: Settings) -> "FeatureCache | None":
    """Where searches keep what the model saw in pictures; says where they keep nothing."""
    cache = store.feature_cache(settings.features_cache, settings.features_dir)
    if cache is not None and cache.is_link:
        render.say(
            f"note: {render.short(cache.directory)}: a link, and not used, so that every search reads its pictures "
            "again: remove it; to keep what the model saw elsewhere, use --features-dir DIR"
        )
    return cache


def tell_truncated(encoder: "RecallEncoder | Judge", *texts: str) -> None:
    """Say which texts the model reads the beginning of only."""
    for text in texts:
        if encoder.truncates(text):
            render.say(f'note: the text is longer than the model reads; its end is left out: "{text[:40]}..."')
