"""Make the library or the model of a command from its settings."""

from typing import TYPE_CHECKING

from bridgetower_cli import render
from bridgetower_cli.settings import Settings

if TYPE_CHECKING:
    from bridgetower.library import Library, Model


def library(settings: Settings, *, preprocessing: str | None = None) -> "Library":
    """Return the library for the index, model and device of the settings. Nothing is read or fetched yet."""
    from bridgetower.library import Library

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


def model(settings: Settings) -> "Model":
    """Return the model of the settings, fetched if need be, for commands without an index. Reads no weights yet."""
    from bridgetower.library import Model

    return Model(
        settings.model,
        device=settings.device,
        precision=settings.precision,
        progress=render.talks_to_terminal(),
        say=render.say,
    )
