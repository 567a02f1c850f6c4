"""From settings to the library, or the model, that a command works on."""

from bridgetower.library import Library, Model
from bridgetower_cli import render
from bridgetower_cli.settings import Settings


def library(settings: Settings, *, preprocessing: str | None = None) -> Library:
    """The index that the settings name, on the model and the device that they name. Nothing is read or fetched yet."""
    return Library(
        settings.index,
        settings.named_model,
        device=settings.device,
        precision=settings.named_precision,
        preprocessing=preprocessing,
        default_model=settings.given_model,
        default_precision=settings.precision if settings.named_precision is None else "auto",
        features_cache=settings.features_cache,
        features_dir=settings.features_dir,
        progress=render.talks_to_terminal(),
        say=render.say,
    )


def model(settings: Settings) -> Model:
    """The model that the settings name, fetched if need be: for what needs no index. Its weights are read later."""
    return Model(
        settings.model,
        device=settings.device,
        precision=settings.precision,
        progress=render.talks_to_terminal(),
        say=render.say,
    )
