"""Say on a page what was asked, and which model answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bridgetower.records import FOREIGN
from bridgetower_cli import render
from bridgetower_cli.libraries import library
from bridgetower_cli.settings import Settings
from bridgetower_cli.showing.options import STDOUT


@dataclass(frozen=True, slots=True)
class Question:
    """A search as the user asked it, and who answered."""

    text: str | None
    answered_by: str
    verified: int  # pictures
    images: Sequence[Path] = ()
    vector: Path | None = None
    limits: Mapping[str, object] = field(default_factory=dict)  # options by name; None for those not given
    ranks: Sequence[int] | None = None  # of the hits in their order; None: from 1

    @property
    def title(self) -> str:
        """The question in one line."""
        parts = [] if self.text is None else [render.harmless(self.text)]
        parts += [f"like {render.visible(image.name)}" for image in self.images]
        if self.vector is not None:
            name = "stdin" if self.vector == STDOUT else render.visible(self.vector.name)
            parts.append(f"a vector of {name}")
        return ", ".join(parts)

    @property
    def given(self) -> str:
        """The limits, as options of a command."""
        given = [(name, value) for name, value in self.limits.items() if value is not None]
        each = [(name, one) for name, value in given for one in (value if isinstance(value, list) else [value])]
        return render.harmless(" ".join(f"{name} {one}" for name, one in each))


def index_answers(settings: Settings, verified: int) -> str:
    """Return the model of an index, and the precision in which it verified, if it did."""
    with library(settings) as indexed:
        made = indexed.fingerprint
    if made is None:
        return model_answers(settings, verified)
    if made.precision_family == FOREIGN:
        return f"vectors of {made.model}" + (f", {model_answers(settings, verified)}" if verified else "")
    name = settings.named_model or made.model
    return f"{name} in {_precision(settings)}" if verified else name


def model_answers(settings: Settings, verified: int) -> str:
    """Return the model of the settings, and the precision in which it verified, if it did."""
    return f"{settings.model} in {_precision(settings)}" if verified else settings.model


def _precision(settings: Settings) -> str:
    """Return the precision of a verification. A server answers only where it computes as this process would."""
    from bridgetower import choose_runtime

    return choose_runtime(settings.device, settings.precision).precision
