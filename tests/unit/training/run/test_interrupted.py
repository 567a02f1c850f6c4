"""Runs in other processes: killed at any instant, or shared by two, they end as one that ran through."""

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.tiny import tiny_checkpoint, tiny_config
from tests.unit.training.run.drawn import draw_set, small
from tests.unit.training.run.trainees import trained

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="no SIGKILL on Windows"), pytest.mark.process]

STEPS, KILLS = 12, 10
SMALL = {"image_size": 32}


def told(out: Path) -> list[dict[str, Any]]:
    """The steps and validations of the log of a run, without what differs from run to run."""
    lines = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["event"] in ("step", "validation")]
    for line in kept:
        for name in ("seconds", "memory", "pairs_per_second"):
            line.pop(name, None)
    return kept


@pytest.mark.slow
def test_ten_kills_change_no_bit_of_the_model_and_no_line_of_the_log(tmp_path: Path) -> None:
    """The model has dropout, and pictures are augmented: all that is drawn is drawn again as it was."""
    data, init = draw_set(tmp_path / "set"), tiny_checkpoint(tmp_path / "init", tiny_config(vision=SMALL))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = small(data, init, killed, steps=STEPS, save_every=0.01)
    draw = random.Random(7)
    kills = [
        {"settings": settings, "kill_at": step, "after": 0.1 * draw.random()}
        for step in sorted(draw.sample(range(1, STEPS), KILLS))
    ]
    ended = trained([{"settings": {**settings, "out": str(whole)}}, *kills, {"settings": settings}])
    assert ended == [[0], *[[-9]] * KILLS, [0]]

    for name in ("model.safetensors", "config.json", "tokenizer.json", "run/result.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert told(killed) == told(whole)
    assert [line["step"] for line in told(whole) if line["event"] == "step"] == [*range(1, STEPS + 1)]
    assert not [*killed.rglob("*.partial")]


def test_two_processes_train_the_model_that_one_trains(tmp_path: Path) -> None:
    """Also where they are stopped, by a signal that one of them gets, and go on."""
    data = draw_set(tmp_path / "set")
    still = tiny_config(text={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}, vision=SMALL)
    init = tiny_checkpoint(tmp_path / "init", still)
    one, two = (small(data, init, tmp_path / name, lr=1e-4) for name in ("one", "two"))
    runs: list[dict[str, Any]] = [
        {"settings": one},
        {"settings": two, "processes": 2, "stop_at": 4},
        {"settings": two, "processes": 2},
    ]
    assert trained(runs) == [[0], [0, 0], [0, 0]]

    weights, shared = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    before = load_file(init / "model.safetensors")
    assert weights.keys() == shared.keys()
    assert any(not weights[key].equal(before[key]) for key in weights)
    for key in weights:
        # Adam makes steps of its full length, 8 of at most 1e-4, out of rounding where there is no gradient, as on the
        # biases of keys.
        assert_close(shared[key], weights[key], rtol=1e-3, atol=2e-4)
    events = [json.loads(line) for line in (tmp_path / "two" / "run" / "log.jsonl").read_text().splitlines()]
    assert [(line["event"], line["step"]) for line in events if line["event"] in ("start", "end")] == [
        ("start", 0), ("end", 4), ("start", 4), ("end", 8),
    ]  # fmt: skip
    for ours, theirs in zip(told(tmp_path / "one"), told(tmp_path / "two"), strict=True):
        assert ours.pop("event") == theirs.pop("event")
        assert ours == pytest.approx(theirs, rel=1e-2)
