"""The data of a run: which pictures are where, which are left out, and the lines of the report."""

import json
from pathlib import Path
from typing import Any

import pytest

from bridgetower.checkpoints.tokenizer import Tokenizer
from bridgetower.errors import InputError, UsageError
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import Skipped
from bridgetower.training.data import prepare
from bridgetower.training.data.pairs import TrainingPicture, true_of
from bridgetower.training.data.prepare import Sources, TrainingData, check, list_captions
from tests.fakes import paint
from tests.tiny import tiny_tokenizer

pytestmark = pytest.mark.usefixtures("decode_here")
Rows = dict[str, list[str]]  # captions of each picture


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(folder)
    return Tokenizer.from_folder(folder, 12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty pictures, each of another grey: 0.png to 19.png."""
    for number in range(20):
        paint(tmp_path / f"{number}.png", (10 * number,) * 3, (8, 8))
    return tmp_path


def write(file: Path, rows: Rows) -> Path:
    file.write_text("".join(json.dumps({"image": name, "captions": texts}) + "\n" for name, texts in rows.items()))
    return file


def named(*numbers: int, of: str = "grey") -> Rows:
    return {f"{number}.png": [f"{of} {number}"] for number in numbers}


def share_out(tokenizer: Tokenizer, data: Path, *, batch: int = 2, seed: int = 0, **options: Any) -> TrainingData:
    sources = Sources(data, **options)
    replay_share = 0.5
    return check(
        sources, list_captions(sources), preprocessing=Preprocessing(16, 16), tokenizer=tokenizer, batch=batch,
        replay_share=replay_share, seed=seed, record=data.parent / "pictures.jsonl",
    )  # fmt: skip


def texts(pictures: tuple[TrainingPicture, ...]) -> list[str]:
    return [caption for picture in pictures for caption in picture.captions]


def test_a_share_of_the_pictures_is_held_out_by_content(folder: Path, tokenizer: Tokenizer) -> None:
    (folder / "copy.png").write_bytes((folder / "3.png").read_bytes())
    rows = {**named(*range(20)), "copy.png": ["a copy of 3", "Grey  3"]}
    for seed in range(6):
        data = share_out(tokenizer, write(folder / "a.jsonl", rows), validation_share=0.25, seed=seed)
        held, kept = texts(data.validation), texts(data.training.pictures)
        assert len(data.validation) == 5 and sorted(held + kept) == sorted(
            [*texts_of(named(*range(20))), "a copy of 3"]
        )
        assert ("grey 3" in held) == ("a copy of 3" in held)
        assert (data.report.equal, data.report.repeated, data.report.held_apart) == (1, 1, 0)
        assert data.report.validation_of == 20
    assert not share_out(tokenizer, folder / "a.jsonl", validation_share=0).validation
    assert len(share_out(tokenizer, folder / "a.jsonl", validation_share=0.001).validation) == 1


def texts_of(rows: Rows) -> list[str]:
    return [text for captions in rows.values() for text in captions]


def test_the_most_that_is_validated(folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "MOST_VALIDATED", 4)
    data = write(folder / "a.jsonl", named(*range(12)))
    assert len(share_out(tokenizer, data, validation_share=0.5).validation) == 4
    other = write(folder / "b.jsonl", named(*range(6, 20)))
    found = share_out(tokenizer, data, validation=other)
    assert len(found.validation) == 4 and found.report.validation_of == 14
    # those that are not drawn are not trained on, either
    assert texts(found.training.pictures) == texts_of(named(*range(6))) and found.report.held_apart == 6
    assert list(found.report.lines())[1] == "validation: 4 pictures, 4 pairs, drawn from 14 pictures"


def test_a_validation_file_takes_its_pictures_from_the_other_parts(folder: Path, tokenizer: Tokenizer) -> None:
    data = write(folder / "a.jsonl", named(*range(8)))
    other = write(folder / "b.jsonl", {**named(6, 7, of="held"), "9.png": ["Grey 1"]})
    old = write(folder / "c.jsonl", {**named(7, of="old"), **named(10, 11, of="old")})
    found = share_out(tokenizer, data, validation=other, replay=(old,))
    assert texts(found.validation) == ["held 6", "held 7", "Grey 1"]
    assert texts(found.training.pictures) == texts_of(named(*range(6)))
    assert texts(found.replay.pictures) == ["old 10", "old 11"]
    assert (found.report.held_apart, found.report.seen_captions) == (2, 1)
    assert found.streams == (found.training, found.replay) and found.order.replayed == 1


def test_a_replay_picture_that_is_trained_on_brings_its_captions_there(folder: Path, tokenizer: Tokenizer) -> None:
    data = write(folder / "a.jsonl", named(0, 1, 2))
    old = [write(folder / f"{n}.jsonl", {**named(n, of="old"), **named(10, 11 + n, of="old")}) for n in (0, 1)]
    found = share_out(tokenizer, data, replay=tuple(old), validation_share=0)
    assert texts(found.training.pictures) == ["grey 0", "old 0", "grey 1", "old 1", "grey 2"]
    assert texts(found.replay.pictures) == ["old 10", "old 11", "old 12"]
    assert (found.report.equal, found.report.known, found.report.repeated) == (1, 2, 1)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"validation": "a.jsonl"}, "all pictures of the training data are in the validation, too: leave out --val"),
        ({"validation_share": 0.05, "data": "d.jsonl"}, "the training data has one picture, so none can be held out: "),
        ({"validation": "b.jsonl", "replay": ("b.jsonl",)}, "all pictures of the replay data are in the training or"),
        ({"replay": ("a.jsonl",), "validation_share": 0}, "all pictures of the replay data are in the training or"),
        ({"batch": 5}, "the training data has 4 pairs, fewer than the 5 in each batch: use a smaller --batch"),
    ],
)
def test_a_part_that_would_be_empty_is_an_error(
    folder: Path, tokenizer: Tokenizer, options: dict[str, Any], complaint: str
) -> None:
    write(folder / "a.jsonl", named(0, 1, 2, 3))
    write(folder / "b.jsonl", named(4, 5))
    paths = {
        key: folder / value if key == "validation" else tuple(folder / one for one in value)
        for key, value in options.items()
        if key in ("validation", "replay")
    }
    write(folder / "d.jsonl", named(0))
    options = {"validation_share": 0, **options, **paths}
    with pytest.raises(UsageError, match=complaint):
        share_out(tokenizer, folder / options.pop("data", "a.jsonl"), **options)


def test_a_split_is_trained_on_or_validated_on() -> None:
    with pytest.raises(UsageError, match="--val-split val is a --split, too"):
        Sources(Path("a"), validation_split="val", splits=("train", "val"))


def test_what_was_listed_is_let_go_where_it_has_been_read(folder: Path, tokenizer: Tokenizer) -> None:
    sources = Sources(write(folder / "a.jsonl", named(*range(8))), replay=(write(folder / "b.jsonl", named(9)),))
    listed = list_captions(sources)
    check(
        sources, listed, preprocessing=Preprocessing(16, 16), tokenizer=tokenizer, batch=2, replay_share=0.5, seed=0
    )  # fmt: skip
    assert not listed.training and not listed.replay


def test_splits_of_one_file_are_trained_on_and_validated_on(folder: Path, tokenizer: Tokenizer) -> None:
    split = {0: "train", 1: "restval", 2: "val", 3: "test", 4: "train"}
    images = [
        {"filename": f"{number}.png", "split": name, "sentences": [{"raw": f"grey {number}"}]}
        for number, name in split.items()
    ]
    (folder / "dataset.json").write_text(json.dumps({"images": images}))
    found = share_out(tokenizer, folder / "dataset.json", splits=("train", "restval"), validation_split="val")
    assert texts(found.training.pictures) == ["grey 0", "grey 1", "grey 4"] and texts(found.validation) == ["grey 2"]
    with pytest.raises(UsageError, match="--val-split val needs --split: name the splits to train on"):
        list_captions(Sources(folder / "dataset.json", validation_split="val"))
    with pytest.raises(InputError, match="has splits; name none"):
        list_captions(Sources(write(folder / "a.jsonl", named(0)), validation_split="val"))


def spoil(folder: Path) -> Path:
    """A file of six pictures: one is not there, two are broken."""
    for number in (1, 4):
        (folder / f"{number}.png").write_bytes(b"no picture")
    (folder / "2.png").unlink()
    return write(folder / "a.jsonl", named(*range(6)))


def test_what_cannot_be_decoded_is_named_with_its_place(folder: Path, tokenizer: Tokenizer) -> None:
    file = spoil(folder)
    with pytest.raises(InputError, match=r"a\.jsonl, line 3: .*2\.png: no such file; .*--skip-missing"):
        share_out(tokenizer, file)
    paint(folder / "2.png", "red")
    with pytest.raises(
        InputError, match=r"a\.jsonl, line 2: .*1\.png: .*, and 1 more; correct the path, mend .*--skip-missing"
    ) as raised:
        share_out(tokenizer, file)
    assert "\n" not in str(raised.value)
    data = write(folder / "b.jsonl", named(*range(6, 12)))
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: "):
        share_out(tokenizer, data, replay=(file,))


def test_what_is_missing_or_broken_is_left_out_where_that_is_asked_for(folder: Path, tokenizer: Tokenizer) -> None:
    found = share_out(tokenizer, spoil(folder), skip_missing=True, validation_share=0)
    assert texts(found.training.pictures) == ["grey 0", "grey 3", "grey 5"]
    assert found.report.missing == (Skipped(folder / "2.png", "no such file, in line 3 of a.jsonl"),)
    assert [skipped.path for skipped in found.report.undecodable] == [folder / "1.png", folder / "4.png"]
    assert found.report.undecodable[1].reason.endswith(", in line 5 of a.jsonl")
    write(folder / "a.jsonl", named(1, 4))
    with pytest.raises(InputError, match=r"a\.jsonl: none of its pictures can be decoded"):
        share_out(tokenizer, folder / "a.jsonl", skip_missing=True)


def test_the_report(folder: Path, tokenizer: Tokenizer) -> None:
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "5.png").write_bytes(b"no picture")
    rows = {
        **named(0, 1, 2, 3, 4, 5, 6),
        "7.png": ["Grey 1", "a " * 30],
        "copy.png": ["grey 0", "a copy"],
        "gone.png": ["nothing"],
    }
    other = write(folder / "b.jsonl", {**named(6, 8), "9.png": ["grey 2"]})
    old = write(folder / "c.jsonl", named(0, 10, 11, 12))
    data = write(folder / "a.jsonl", rows)
    report = share_out(tokenizer, data, validation=other, replay=(old,), skip_missing=True, batch=4).report
    assert list(report.lines()) == [
        "training: 6 pictures, 8 pairs; 4 steps of 4 an epoch",
        "validation: 3 pictures, 3 pairs; 1 caption of it is in training, too",
        "replay: 3 pictures, 3 pairs; 2 of the 4 pairs of a step",
        "1 picture is not there: left out",
        "1 file is no picture that can be decoded: left out",
        "1 picture is in the validation, too: left out of the other parts",
        "1 file is equal to another: one picture, with the captions of all",
        "1 picture is in the training data and in the replay: training, with the captions of both",
        "1 caption is repeated at the same picture: counted once",
        "4 pairs are of a caption that other pictures have, too: true of each of them",
        "1 caption is longer than the 12 tokens that the model reads: the end is cut off",
    ]
    told = json.loads(json.dumps(report.as_json()))
    assert told["training"] == {"pictures": 6, "pairs": 8} and told["replayed"] == 2
    assert [Path(one["path"]).name for one in told["missing"] + told["undecodable"]] == ["gone.png", "5.png"]
    numbers = {
        "equal": 1,
        "known": 1,
        "repeated": 1,
        "shared": 4,
        "cut": 1,
        "held_apart": 1,
        "seen_captions": 1,
        "batch": 4,
    }
    assert {key: told[key] for key in numbers} == numbers


def test_captions_that_are_equal_as_they_are_read_are_one(folder: Path, tokenizer: Tokenizer) -> None:
    start = "two cats on a couch a dog in a car twelve birds above the sea"
    rows = {"0.png": [f"{start} and a house", f"{start} and a tree"], "1.png": [f"{start}, three umbrellas"]}
    data = share_out(tokenizer, write(folder / "a.jsonl", rows), validation_share=0)
    assert (data.report.repeated, data.report.cut, data.report.shared) == (1, 2, 2)
    (first, text), (second, _) = data.training[0], data.training[1]
    assert len(data.training) == 2 and true_of([text], [first, second]).all()
    assert start.startswith(text) and tokenizer.encode(text).ids == tokenizer.encode(rows["0.png"][0]).ids


def test_a_report_of_nothing_odd_is_one_line(folder: Path, tokenizer: Tokenizer) -> None:
    report = share_out(tokenizer, write(folder / "a.jsonl", named(0, 1, 2)), validation_share=0).report
    assert list(report.lines()) == ["training: 3 pictures, 3 pairs; 1.5 steps of 2 an epoch"]
    assert report.as_json()["validation"] is None and report.as_json()["replay"] is None


def test_the_digest_is_of_what_is_learnt_not_of_where_it_stands(folder: Path, tokenizer: Tokenizer) -> None:
    data = write(folder / "a.jsonl", named(0, 1, 2, 3))
    first = share_out(tokenizer, data).digest
    assert share_out(tokenizer, data).digest == first != share_out(tokenizer, data, seed=1).digest
    write(data, {**named(0, 1, 2), "3.png": ["grey three"]})
    assert share_out(tokenizer, data).digest != first
    write(data, named(0, 1, 2, 3))
    paint(folder / "3.png", "red")
    assert share_out(tokenizer, data).digest != first
