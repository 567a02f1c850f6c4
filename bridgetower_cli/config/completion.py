"""The words that the shell completes. What cannot be read completes to nothing: a message would garble the prompt."""

from collections.abc import Callable, Iterable

import typer

from bridgetower.errors import BridgeTowerError
from bridgetower.records import DEFAULT_MODEL, DEMO
from bridgetower_cli.config.file import place, read
from bridgetower_cli.config.keys import KEYS
from bridgetower_cli.config.places import DEFAULT, LIBRARY_PREFIX
from bridgetower_cli.config.places import libraries as places

_PUBLISHED = [DEFAULT_MODEL]
_PUBLISHED += [f"BridgeTower/bridgetower-{name}" for name in ("base-itm-mlm", "large-itm-mlm", "large-itm-mlm-gaudi")]


def completing(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a function for shell completion of these words."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Complete the name of a model: those on this machine, and the published ones."""
    from bridgetower import model_names

    return completing(dict.fromkeys([DEMO, *model_names(), *_PUBLISHED]))(incomplete)


def models_to_remove(incomplete: str) -> list[str]:
    """Complete the name of a model that can be removed."""
    from bridgetower import model_names

    return completing(model_names())(incomplete)


def libraries(incomplete: str) -> list[str]:
    """Complete the name of a library."""
    return completing(_libraries())(incomplete)


def settings(incomplete: str) -> list[str]:
    """Complete the name of a setting."""
    named = [f"{LIBRARY_PREFIX}{name}" for name in _libraries() if name != DEFAULT]
    return completing([*KEYS, *named])(incomplete)


def setting_values(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the value of a setting, which is the argument before."""
    setting = context.params.get("name")
    if setting == "library":
        return libraries(incomplete)
    if setting == "model":
        return models(incomplete)
    return completing(KEYS[setting].words if setting in KEYS else ())(incomplete)


def _libraries() -> list[str]:
    try:
        return [*places(read(place()))]
    except BridgeTowerError:
        return []
