"""The settings of a run: what is refused, what is kept, and what decides the result."""

import json
from pathlib import Path
from typing import Any

import pytest

from bridgetower.errors import UsageError
from bridgetower.records import Head
from bridgetower.training.run.settings import TrainSettings


def settings(**changes: Any) -> TrainSettings:
    return TrainSettings(**{"data": "captions.jsonl", "init": "demo", "out": "model", **changes})


def test_defaults_are_those_of_the_paper_and_a_small_share_is_held_out() -> None:
    found = settings()
    assert (found.lr, found.new_factor, found.warmup, found.epochs, found.steps) == (5e-6, 5.0, 0.05, 20, None)
    assert (found.batch, found.share_held_out, found.replay_share, found.freeze) == (64, 0.05, None, "none")
    assert settings(replay=["old.json"]).replay_share == 0.5


def test_paths_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = settings(out="~/model", val="val.json", images="pictures", replay=["old.json"])
    assert (found.data, found.val, found.images) == (
        tmp_path / "captions.jsonl",
        tmp_path / "val.json",
        tmp_path / "pictures",
    )
    assert found.replay == (tmp_path / "old.json",)
    assert found.out == Path.home() / "model"


def test_new_heads_are_known_by_their_names() -> None:
    assert settings(new_heads=["itc", Head.MLM]).new_heads == (Head.ITC, Head.MLM)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3, "steps": 10}, "--epochs and --steps both say how long: give one of them"),
        (
            {"val": "v.json", "val_share": 0.1},
            "--val, --val-split and --val-share each say which pictures are held out",
        ),
        ({"replay_images": "old"}, "--replay-images is the folder of the pictures of --replay: give --replay, too"),
        ({"replay_share": 0.5}, "--replay-share is the share of the pairs of --replay: give --replay, too"),
        ({"micro_batch": 65}, "--micro-batch 65 is more than --batch 64: give at most that"),
        ({"batch": 1}, "--batch 1: give a whole number from 2 to 1048576"),
        ({"steps": 0}, "--steps 0: give a whole number from 1"),
        ({"micro_batch": True}, "--micro-batch True: give a whole number"),
        ({"seed": -1}, "--seed -1: give a whole number from 0"),
        ({"lr": 0}, "--lr 0: give a number above 0"),
        ({"lr": float("nan")}, "--lr nan: give a number above 0"),
        ({"warmup": 1.5}, "--warmup 1.5: give a number from 0 to 1"),
        ({"val_share": 1.0}, "--val-share 1.0: give a number from 0 to less than 1"),
        ({"replay_share": 1.0}, "--replay-share 1.0: give a number between 0 and 1"),
        ({"save_every": 0}, "--save-every 0: give a number above 0"),
        ({"freeze": "all"}, "--freeze all: give one of none, towers, text, vision"),
        ({"precision": "int8"}, "--precision int8: give one of auto, fp32, bf16"),
        ({"device": "tpu"}, "--device tpu: give one of auto, cpu, cuda, mps"),
        ({"new_heads": ["vqa"]}, "--new-head vqa: give one of itc, itm, mlm"),
    ],
)
def test_what_cannot_be_is_refused_by_its_option(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(**changes)
    assert str(caught.value).startswith(message)


def test_what_changes_the_result_is_told_by_its_option_in_plain_values() -> None:
    told = settings(new_heads=[Head.ITC], replay=["old.json"]).deciding()
    assert json.loads(json.dumps(told)) == told
    assert told["--lr"] == 5e-6
    assert told["--new-head"] == ["itc"]
    assert told["--val-share"] == 0.05 == settings(val_share=0.05).deciding()["--val-share"]
    assert told.keys() == TrainSettings.defaults().keys()
    same = settings(
        data="moved.jsonl", init="moved", new_heads=[Head.ITC], replay=["moved.json"], micro_batch=2, device="cpu",
        save_every=1, log_every=1, workers=2, gradient_checkpointing=True, images="elsewhere",
    )  # fmt: skip
    assert same.deciding() == told
    for change in ({"lr": 1e-5}, {"seed": 1}, {"augment": False}, {"freeze": "text"}, {"eval_every": 3}, {"batch": 8}):
        assert settings(**change).deciding() != settings().deciding()


def test_a_run_without_augmentation_is_told_as_one() -> None:
    assert settings().deciding()["augmentation"] is True
    assert settings(augment=False).deciding()["augmentation"] is False
