"""The report of the data: how much there is, and what is odd about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bridgetower.records import Skipped


@dataclass(frozen=True, slots=True)
class Amount:
    """Pictures, equal ones counted once, and their pairs with a caption."""

    pictures: int
    pairs: int

    def __str__(self) -> str:
        return f"{_counted(self.pictures, 'picture')}, {_counted(self.pairs, 'pair')}"


@dataclass(frozen=True, slots=True)
class DataReport:
    """All that was found before the first step."""

    training: Amount
    validation: Amount | None
    replay: Amount | None
    batch: int  # pairs of a step
    replayed: int  # of them, from the replay data
    validation_of: int = 0  # pictures that those of the validation were drawn from; 0 where all are taken
    missing: tuple[Skipped, ...] = ()  # pictures that are not there
    undecodable: tuple[Skipped, ...] = ()  # pictures that cannot be read or decoded
    equal: int = 0  # files with the content of another file
    known: int = 0  # pictures of the replay that the training data has, too
    repeated: int = 0  # captions that their picture has already
    shared: int = 0  # pairs with a caption that other pictures have, too
    cut: int = 0  # captions longer than the model reads
    max_tokens: int = 0  # that it reads
    held_apart: int = 0  # pictures of the training or replay data that are left out, because validation has them
    seen_captions: int = 0  # captions of the validation that training or replay has, too

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which each training pair comes once."""
        return self.training.pairs / (self.batch - self.replayed)

    def lines(self) -> Iterator[str]:
        """Yield the report for people."""
        yield f"training: {self.training}; {self.steps_per_epoch:.4g} steps of {self.batch} an epoch"
        if self.validation:
            of = f", drawn from {self.validation_of:,} pictures" if self.validation_of else ""
            seen = f"; {_counted(self.seen_captions, 'caption')} of it {_is(self.seen_captions)} in training, too"
            yield f"validation: {self.validation}{of}{seen if self.seen_captions else ''}"
        if self.replay:
            yield f"replay: {self.replay}; {self.replayed} of the {self.batch} pairs of a step"
        for number, what, so in (
            (len(self.missing), "picture", "not there: left out"),
            (len(self.undecodable), "file", "no picture that can be decoded: left out"),
            (self.held_apart, "picture", "in the validation, too: left out of the other parts"),
            (self.equal, "file", "equal to another: one picture, with the captions of all"),
            (self.known, "picture", "in the training data and in the replay: training, with the captions of both"),
            (self.repeated, "caption", "repeated at the same picture: counted once"),
            (self.shared, "pair", "of a caption that other pictures have, too: true of each of them"),
            (self.cut, "caption", f"longer than the {self.max_tokens} tokens that the model reads: the end is cut off"),
        ):
            if number:
                yield f"{_counted(number, what)} {_is(number)} {so}"

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        parts = {"training": self.training, "validation": self.validation, "replay": self.replay}
        return {
            **{name: part and {"pictures": part.pictures, "pairs": part.pairs} for name, part in parts.items()},
            "batch": self.batch,
            "replayed": self.replayed,
            "validation_of": self.validation_of,
            "missing": [_as_json(skipped) for skipped in self.missing],
            "undecodable": [_as_json(skipped) for skipped in self.undecodable],
            "equal": self.equal,
            "known": self.known,
            "repeated": self.repeated,
            "shared": self.shared,
            "cut": self.cut,
            "held_apart": self.held_apart,
            "seen_captions": self.seen_captions,
        }


def _as_json(skipped: Skipped) -> dict[str, str]:
    return {"path": str(skipped.path), "reason": skipped.reason}


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"
