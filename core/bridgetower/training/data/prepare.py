"""Read captions files, look at each picture, and share the pictures out: to train on, to validate on, to replay."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bridgetower.checkpoints.tokenizer import Tokenizer
from bridgetower.errors import InputError, UsageError
from bridgetower.files.captions.captioned import Captioned
from bridgetower.files.captions.read import read_captions
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import OnProgress, Skipped, quiet
from bridgetower.training.data.look import Seen, look_at
from bridgetower.training.data.order import Order
from bridgetower.training.data.pairs import (
    Merged,
    Pairs,
    TrainingPicture,
    digest,
    drawn,
    merged,
    seen_captions,
    shared_captions,
)
from bridgetower.training.data.report import Amount, DataReport

MOST_VALIDATED = 1000  # pictures: enough for a recall to tenths of a percent, and quick to rank


@dataclass(frozen=True, slots=True)
class Sources:
    """The captions files of a run, of `TrainSettings`. Raises UsageError for splits that do not go together."""

    data: Path
    images: Path | None = None  # folder of the pictures of `data` and `validation`; None for that of each file
    splits: tuple[str, ...] = ()  # of a file of Karpathy; () for all
    skip_missing: bool = False  # whether pictures that are not there, or cannot be decoded, are left out
    validation: Path | None = None  # a captions file of its own
    validation_split: str | None = None  # or a split of `data`
    validation_share: float = 0.05  # or a share of the pictures, drawn by the seed; 0 for no validation
    replay: tuple[Path, ...] = ()  # data of earlier trainings, so that they are not forgotten
    replay_images: Path | None = None

    def __post_init__(self) -> None:
        if self.validation_split in self.splits:
            raise UsageError(f"--val-split {self.validation_split} is a --split, too: validate on another one")


@dataclass(frozen=True, slots=True)
class Listed:
    """The items of all captions files of a run; nothing is known of their pictures yet. `check` empties the lists."""

    training: list[Captioned]
    validation: list[Captioned]
    replay: list[Captioned]
    files: dict[Path, Path]  # the captions file of each picture, the first of several
    missing: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The data of a run: to train on, to validate on, to replay. No content is in two of the parts."""

    training: Pairs
    validation: tuple[TrainingPicture, ...]  # () for none; at most MOST_VALIDATED
    replay: Pairs  # of length 0 for none
    order: Order
    report: DataReport

    @property
    def streams(self) -> tuple[Pairs, Pairs]:
        """The pairs of `order`."""
        return self.training, self.replay

    @property
    def digest(self) -> str:
        """The hex digest of all contents and texts: a run is continued with the same."""
        return digest([self.training.pictures, self.validation, self.replay.pictures])


def list_captions(sources: Sources) -> Listed:
    """Read all captions files. Raises InputError that names the line or the entry, UsageError."""
    missing: list[Skipped] = []
    files: dict[Path, Path] = {}

    def listed(file: Path, images: Path | None, splits: Collection[str]) -> list[Captioned]:
        on_missing = missing.append if sources.skip_missing else None
        items = read_captions(file, images=images, split=splits or None, on_missing=on_missing)
        for item in items:
            files.setdefault(item.image, file)
        return items

    if (held_out := sources.validation_split) is not None and not sources.splits:
        read_captions(sources.data, images=sources.images, split=held_out, on_missing=quiet)  # refuses other forms
        raise UsageError(f"--val-split {held_out} needs --split: name the splits to train on, such as --split train")
    training = listed(sources.data, sources.images, sources.splits)
    validation: list[Captioned] = []
    if sources.validation is not None:
        validation = listed(sources.validation, sources.images, ())
    elif sources.validation_split is not None:
        validation = listed(sources.data, sources.images, (sources.validation_split,))
    replay = [item for file in sources.replay for item in listed(file, sources.replay_images, ())]
    return Listed(training, validation, replay, files, tuple({skipped.path: skipped for skipped in missing}.values()))


def check(
    sources: Sources,
    listed: Listed,
    *,
    preprocessing: Preprocessing,
    tokenizer: Tokenizer,
    batch: int,
    replay_share: float,
    seed: int,
    record: Path | None = None,
    processes: int | None = None,
    on_progress: OnProgress = quiet,
) -> TrainingData:
    """Look at all pictures, and share them out; `record` is the file that keeps what was seen.

    Raises InputError where a picture cannot be decoded, unless `sources` skip such ones; UsageError where there are
    fewer pairs than a batch takes; OutputError, ProcessError, ResourceError.
    """
    parts = listed.training, listed.validation, listed.replay
    paths = list(dict.fromkeys(item.image for part in parts for item in part))
    look = look_at(paths, preprocessing, record=record, processes=processes, on_progress=on_progress)
    seen = {found.path: found for found in look}
    undecodable = _undecodable(listed, seen, skip=sources.skip_missing)

    # Texts are compared as they are read: two that are equal after the cut are not told apart.
    short = tokenizer.shortened(caption for part in parts for item in part for caption in item.captions)
    own, validated, old = (_decodable(part, listed.files, seen, short) for part in parts)
    shares = _share_out(own.pictures, validated.pictures, old.pictures, sources.validation_share, seed)
    training, replay, cut = Pairs(shares.training.pictures), Pairs(shares.replay), set(short.values())
    order = Order(len(training), len(replay), batch=batch, replay_share=replay_share, seed=seed)
    everything = (*training.pictures, *shares.validation, *replay.pictures)
    report = DataReport(
        training=_amount(training.pictures),
        validation=_amount(shares.validation) if shares.validation else None,
        validation_of=shares.drawn_from if shares.drawn_from > len(shares.validation) else 0,
        replay=_amount(replay.pictures) if replay.pictures else None,
        batch=batch,
        replayed=order.replayed,
        missing=listed.missing,
        undecodable=undecodable,
        equal=sum(part.equal for part in (own, validated, old)),
        known=shares.training.equal,
        repeated=sum(part.repeated for part in (own, validated, old)),
        shared=shared_captions(everything),
        cut=sum(caption in cut for picture in everything for caption in picture.captions),
        max_tokens=tokenizer.max_tokens,
        held_apart=shares.held_apart,
        seen_captions=seen_captions(shares.validation, (*training.pictures, *replay.pictures)),
    )
    return TrainingData(training, shares.validation, replay, order, report)


def _decodable(
    items: list[Captioned], files: Mapping[Path, Path], seen: Mapping[Path, Seen], short: Mapping[str, str]
) -> Merged:
    """Merge the items whose picture can be decoded, and empty the list, which is as large as the pictures.

    `short` has another text for captions that are too long. Raises InputError where no picture is left.
    """
    found = merged(
        TrainingPicture(one.path, one.size, one.hash, tuple(short.get(text, text) for text in item.captions))
        for item in items
        if (one := seen[item.image]).reason is None
    )
    if items and not found.pictures:
        raise InputError(f"{files[items[0].image]}: none of its pictures can be decoded; give another file")
    items.clear()
    return found


class _Shares(NamedTuple):
    """Pictures of a run, no content in two parts."""

    training: Merged
    validation: tuple[TrainingPicture, ...]
    replay: tuple[TrainingPicture, ...]
    drawn_from: int  # pictures that those of the validation were drawn from
    held_apart: int  # pictures of the training or replay data that are left out, because validation has them


def _share_out(
    own: Sequence[TrainingPicture],
    validated: Sequence[TrainingPicture],
    old: Sequence[TrainingPicture],
    validation_share: float,
    seed: int,
) -> _Shares:
    """Share out the pictures of the data, of a validation of its own, and of the replay. Raises UsageError.

    A picture of the validation is in no other part. One of both others is in the training, with the captions of both.
    """
    pool, number = validated, MOST_VALIDATED
    if not pool and validation_share:
        pool, number = own, min(max(1, round(validation_share * len(own))), MOST_VALIDATED)
    chosen = drawn(pool, number, seed)
    apart = chosen | {picture.hash for picture in validated}
    known = {picture.hash for picture in own} - apart
    training = merged(picture for picture in (*own, *old) if picture.hash in known)
    replay = tuple(picture for picture in old if picture.hash not in apart | known)
    if not training.pictures and validated:
        raise UsageError(
            "all pictures of the training data are in the validation, too: leave out --val or --val-split, and a share "
            "of them is held out"
        )
    if not training.pictures:
        raise UsageError("the training data has one picture, so none can be held out: give --val-share 0")
    if old and not replay:
        raise UsageError("all pictures of the replay data are in the training or the validation: leave --replay out")
    before = own if validated else ()  # a picture that is drawn from the training data is no surprise
    return _Shares(
        training,
        tuple(picture for picture in pool if picture.hash in chosen),
        replay,
        len(pool),
        len(apart & {picture.hash for picture in (*before, *old)}),
    )


def _undecodable(listed: Listed, seen: Mapping[Path, Seen], *, skip: bool) -> tuple[Skipped, ...]:
    """Return the pictures that cannot be decoded, with their places. Raises InputError for the first, unless `skip`."""
    places: dict[Path, str] = {}
    for item in (*listed.training, *listed.validation, *listed.replay):
        if seen[item.image].reason is not None:
            places.setdefault(item.image, item.places[0])
    for path, place in places.items():
        if not skip:
            others = f", and {len(places) - 1} more" if len(places) > 1 else ""
            raise InputError(
                f"{listed.files[path]}, {place}: {path}: {seen[path].reason}{others}; correct the path, mend the "
                "picture, or leave out what cannot be decoded with --skip-missing"
            )
    return tuple(
        Skipped(path, f"{seen[path].reason}, in {place} of {listed.files[path].name}") for path, place in places.items()
    )


def _amount(pictures: Sequence[TrainingPicture]) -> Amount:
    return Amount(len(pictures), sum(len(picture.captions) for picture in pictures))
