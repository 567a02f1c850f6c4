"""`bt train` from outside: on a few painted pictures and a tiny model."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from bridgetower import TrainSettings, train_model
from bridgetower.files.lock import Lock
from bridgetower.records import Head
from bridgetower.training.distributed import ONE_RANK
from bridgetower.training.validation import Validation
from bridgetower_cli import interrupts, progress
from bridgetower_cli.parser import app
from tests.tiny import tiny_checkpoint

BT = Path(sys.executable).with_name("bt")
CAPTIONS = ("a red ball under a tree", "two cats on a couch", "a dog in a car", "twelve birds above the sea")
PICTURES = 16
WEIGHTS = "model.safetensors"
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")


class Signals:
    """The first signal of a command, as `interrupts.hand_over` would deliver it: after a step of the training."""

    def __init__(self) -> None:
        self.end: Callable[[KeyboardInterrupt], object] = lambda _: None
        self.after: int | None = None  # step
        self.kind: type[KeyboardInterrupt] = KeyboardInterrupt

    def hand_over(self, end: Callable[[KeyboardInterrupt], object]) -> None:
        self.end = end

    def update(self, meter: progress.Meter, done: int, *_: object, **__: object) -> None:
        if meter._doing == "training" and done == self.after:
            self.end(self.kind())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captions file of pictures, each of noise of its own, with captions that repeat."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(PICTURES):
        noise = random.Random(number).randbytes(3 * 12 * 12)
        Image.frombytes("RGB", (12, 12), noise).resize((96, 96), Image.Resampling.NEAREST).save(
            folder / f"{number}.png"
        )
    rows = [{"image": f"{number}.png", "captions": [CAPTIONS[number % 4]]} for number in range(PICTURES)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "captions.jsonl"


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Signals:
    signals = Signals()
    monkeypatch.setattr(interrupts, "hand_over", signals.hand_over)
    update = progress.Meter.update

    def watched(meter: progress.Meter, *given: Any, **named: Any) -> None:
        update(meter, *given, **named)
        signals.update(meter, *given)

    monkeypatch.setattr(progress.Meter, "update", watched)
    return signals


class Bt:
    """Run `bt train` on the data and the tiny model, into `out`, in this process."""

    def __init__(self, data: Path, model: Path, out: Path) -> None:
        self.data, self.model, self.out = data, model, out
        self.options = ["--batch", "8", "--steps", "4", "--precision", "fp32", "--device", "cpu"]

    def __call__(self, *more: object, out: Path | None = None) -> Result:
        """Later options stand for earlier ones."""
        given = ["--init", self.model, "--out", out or self.out, *self.options, *more]
        once = _last(list(map(str, given)))
        return CliRunner().invoke(app, ["train", str(self.data), *once], prog_name="bt")


def _last(options: list[str]) -> list[str]:
    """Leave out what a later option of the same name replaces."""
    found: dict[str, list[str]] = {}
    for word in options:
        if word.startswith("--"):
            found.pop(word, None)
            found[word] = [word]
        else:
            found[[*found][-1]].append(word)
    return [word for words in found.values() for word in words]


@pytest.fixture
def bt(data: Path, model: Path, tmp_path: Path, decode_here: None, signals: Signals) -> Bt:
    return Bt(data, model, tmp_path / "new")


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# The whole way


def test_the_folder_is_printed_and_taken_by_bt_and_transformers(bt: Bt, data: Path, tmp_path: Path) -> None:
    done = bt()
    assert (done.exit_code, done.stdout) == (0, f"{bt.out}\n"), done.stderr
    said = done.stderr.splitlines()
    assert said[0] == "training: 15 pictures, 15 pairs; 1.875 steps of 8 an epoch"
    assert said[1].startswith("validation: 1 picture, 1 pair, drawn from 16 pictures")
    assert "4 steps, with a validation at the end" in said
    assert any(line.endswith(" million parameters learn on cpu; fp32: as asked") for line in said)
    assert [line for line in said if line.startswith("step 4: validation IR@1 ") and line.endswith(", kept")]
    assert said[-1].startswith("trained 4 steps; the model is that of step ")
    assert not same_weights(bt.out, bt.model)

    index = ["--index", str(tmp_path / "index"), "--device", "cpu"]
    indexed = CliRunner().invoke(app, ["index", str(data.parent), "--model", str(bt.out), *index])
    assert indexed.exit_code == 0, indexed.stderr
    found = CliRunner().invoke(app, ["search", "two cats", "--json", "--no-server", *index])
    assert (found.exit_code, len(events(found.stdout))) == (0, 10), found.stderr

    from transformers import BridgeTowerForContrastiveLearning

    _, loading = BridgeTowerForContrastiveLearning.from_pretrained(bt.out, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["mismatched_keys"]


def test_a_dry_run_reports_and_trains_nothing(bt: Bt) -> None:
    done = bt("--dry-run")
    assert done.exit_code == 0
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("training: 15 pictures") and last == "4 steps, with a validation at the end"
    assert not (bt.out / "config.json").exists() and not (bt.out / "run" / "state.pt").exists()
    assert bt("--dry-run", "--eval-every", 9).stdout.endswith("\n4 steps, with a validation at the end\n")
    [report] = events(bt("--dry-run", "--json").stdout)
    assert report["event"] == "data" and report["training"] == {"pictures": 15, "pairs": 15}
    assert bt().exit_code == 0  # the folder can be used


def test_json_is_an_object_for_each_event_with_the_fields_of_the_log(bt: Bt) -> None:
    done = bt("--json", "--log-every", 2, "--eval-every", 2, "--quiet")
    assert (done.exit_code, done.stderr) == (0, "")
    told = events(done.stdout)
    assert [row["event"] for row in told] == ["data", "start", "step", "validation", "step", "validation", "end"]
    logged = events((bt.out / "run" / "log.jsonl").read_text())
    assert [(row["event"], row["step"]) for row in logged] == [(row["event"], row["step"]) for row in told[1:]]
    for ours, theirs in zip(told[1:-1], logged, strict=False):
        assert {*theirs} - {"time"} == {*ours}
    assert told[2]["step"] == 2 and told[2]["itc"] > 0 and told[2]["pairs"] == 8
    end = {"event": "end", "model": str(bt.out), "step": 4, "steps": 4, "best": told[-1]["best"]}
    assert told[-1] == {**end, "finished": True, "already": False}
    assert events(bt("--json", "--eval-every", 2).stdout)[-1] == {**end, "finished": True, "already": True}


def test_without_a_terminal_losses_are_lines_from_time_to_time(bt: Bt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0)
    said = bt().stderr
    assert "checking: 16 of 16 pictures" in said
    [line] = [line for line in said.splitlines() if line.startswith("training: 3 of 4 steps, ")]
    assert "training: 0 of 4 steps" in said
    assert " left, itc " in line and ", itm " in line and ", mlm " in line
    assert "\x1b" not in said


def test_without_validation_the_last_model_is_kept(bt: Bt) -> None:
    done = bt("--val-share", 0)
    assert done.exit_code == 0
    assert "training: 16 pictures" in done.stderr and "validation" not in done.stderr
    assert done.stderr.splitlines()[-1] == "trained 4 steps; the model is that of the last step"


def test_a_validation_that_is_worse_is_told_and_its_model_not_kept(bt: Bt, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {1: 50.0, 2: 75.0, 3: 75.0, 4: 25.0}

    def worse_at_the_end(*_: object, step: int, **__: object) -> Validation:
        return Validation(step, scores[step], scores[step], 1, 1)

    monkeypatch.setattr("bridgetower.training.run.train.validate", worse_at_the_end)
    said = bt("--eval-every", 1).stderr.splitlines()
    assert [line.partition("TR@1 ")[2] for line in said if line.startswith("step ")] == [
        "50.0, kept", "75.0, kept", "75.0, kept", "25.0",
    ]  # fmt: skip
    assert said[-1] == "trained 4 steps; the model is that of step 3, validation IR@1 75.0, TR@1 75.0"
    logged = events((bt.out / "run" / "log.jsonl").read_text())
    assert [row["kept"] for row in logged if row["event"] == "validation"] == [True, True, True, False]


def test_the_report_tells_the_pictures_of_validation_and_replay(bt: Bt, data: Path) -> None:
    rows = data.read_text().splitlines(keepends=True)
    parts = {"own": rows[:12], "held-out": rows[12:14], "old": rows[14:]}
    own, held_out, old = (data.with_name(f"{name}.jsonl") for name in parts)
    for file, part in zip((own, held_out, old), parts.values(), strict=True):
        file.write_text("".join(part))
    bt.data = own
    done = bt("--val", held_out, "--replay", old, "--replay-share", 0.25, "--dry-run")
    assert done.exit_code == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "training: 12 pictures, 12 pairs; 2 steps of 8 an epoch"
    assert said[1] == "validation: 2 pictures, 2 pairs; 2 captions of it are in training, too"
    assert "replay: 2 pictures, 2 pairs; 2 of the 8 pairs of a step" in said


def test_a_head_that_is_begun_makes_a_model_searchable(bt: Bt, data: Path, tmp_path: Path) -> None:
    bt.model = tiny_checkpoint(tmp_path / "no-itc", heads=frozenset({Head.ITM, Head.MLM}))
    index = ["index", str(data.parent), "--index", str(tmp_path / "index"), "--device", "cpu", "--model"]
    assert CliRunner().invoke(app, [*index, str(bt.model)]).exit_code == 4
    assert bt("--new-head", "itc").exit_code == 0
    assert CliRunner().invoke(app, [*index, str(bt.out)]).exit_code == 0


def test_each_option_arrives(bt: Bt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Any] = {}

    class Enough(Exception):
        pass

    def settings(**named: Any) -> None:
        given.update(named)
        raise Enough

    monkeypatch.setattr("bridgetower.TrainSettings", settings)
    bt.options = []
    for name in "BT_DEVICE", "BT_PRECISION":
        monkeypatch.delenv(name, raising=False)
    bt()
    defaults = {field.name: field.default for field in dataclasses.fields(TrainSettings)}
    assert {name: given[name] for name in defaults if name not in ("data", "init", "out")} == {
        name: value for name, value in defaults.items() if name not in ("data", "init", "out")
    }
    wanted = {
        "images": Path("i"), "splits": ("s",), "skip_missing": True, "val": Path("v"), "val_split": "w",
        "val_share": 0.2,
        "replay": (Path("r"),), "replay_images": Path("j"), "replay_share": 0.3, "epochs": 2, "steps": 3, "batch": 4,
        "micro_batch": 5, "lr": 6e-6, "new_factor": 7.0, "warmup": 0.4, "freeze": "text", "new_heads": (Head.ITC,),
        "augment": False, "gradient_checkpointing": True, "precision": "bf16", "device": "cuda", "seed": 8,
        "save_every": 120.0, "eval_every": 9, "log_every": 11, "workers": 12,
    }  # fmt: skip
    bt(
        "--images", "i", "--split", "s", "--skip-missing", "--val", "v", "--val-split", "w", "--val-share", 0.2,
        "--replay", "r", "--replay-images", "j", "--replay-share", 0.3, "--epochs", 2, "--steps", 3, "--batch", 4,
        "--micro-batch", 5, "--lr", "6e-6", "--new-factor", 7, "--warmup", 0.4, "--freeze", "text", "--new-head", "itc",
        "--no-augment", "--gradient-checkpointing", "--precision", "bf16", "--device", "cuda", "--seed", 8,
        "--save-every", "2m", "--eval-every", 9, "--log-every", 11, "--workers", 12,
    )  # fmt: skip
    assert {name: given[name] for name in wanted} == wanted
    assert {*wanted} | {"data", "init", "out"} == {*defaults}


# Interrupted


@pytest.mark.parametrize(("kind", "code"), [(KeyboardInterrupt, 130), (interrupts.Terminated, 143)])
def test_a_signal_saves_the_state_and_the_same_command_goes_on(
    bt: Bt, signals: Signals, kind: type[KeyboardInterrupt], code: int, tmp_path: Path
) -> None:
    signals.after, signals.kind = 3, kind
    bt.options += ["--eval-every", "2"]
    done = bt()
    assert (done.exit_code, done.stdout) == (code, "")
    assert "interrupted after step 3 of 4: the state is saved, the same command goes on from there" in done.stderr
    signals.after = None
    again = bt()
    assert (again.exit_code, again.stdout) == (0, f"{bt.out}\n")
    assert "going on after step 3" in again.stderr
    whole = bt(out=tmp_path / "whole")
    assert whole.exit_code == 0 and same_weights(bt.out, tmp_path / "whole")
    steps = [row["step"] for row in events((bt.out / "run" / "log.jsonl").read_text()) if row["event"] == "validation"]
    assert steps == [2, 4]


def test_of_several_processes_the_first_one_talks(bt: Bt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgetower.training.run.prepare.join", lambda device: ONE_RANK)
    given = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for options in ([], ["--dry-run"]):
        done = bt(*options)
        assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")
    monkeypatch.setenv("RANK", "0")
    assert bt().stdout == f"{bt.out}\n"


def test_variables_that_are_not_of_torchrun_are_refused(bt: Bt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "abc")
    done = bt()
    assert (done.exit_code, done.stdout) == (2, "")
    assert "WORLD_SIZE and RANK are not as torchrun sets them" in done.stderr


def test_a_signal_to_another_process_of_the_run_is_an_interruption(bt: Bt, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping = partial(train_model, should_stop=lambda: True)  # after the next step
    monkeypatch.setattr("bridgetower.train_model", lambda prepared, **told: stopping(prepared, **_without_stop(told)))
    done = bt()
    assert (done.exit_code, done.stdout) == (130, "")
    assert "interrupted after step 1 of 4" in done.stderr
    done = bt("--json")
    end = {"event": "end", "model": str(bt.out), "step": 2, "steps": 4, "finished": False, "already": False}
    assert (done.exit_code, events(done.stdout)[-1]) == (130, {**end, "best": None})


def _without_stop(told: dict[str, Any]) -> dict[str, Any]:
    return {name: listener for name, listener in told.items() if name != "should_stop"}


def test_an_interrupted_check_says_what_is_kept(bt: Bt, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bridgetower.training.run.prepare.check", interrupted)
    done = bt()
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == ("interrupted: what was seen of the pictures is kept, the same command goes on from there\n")


def test_a_folder_in_which_another_process_trains_is_refused(bt: Bt) -> None:
    (bt.out / "run").mkdir(parents=True)
    lock = Lock(bt.out / "run" / "lock", "this run")
    try:
        done = bt()
    finally:
        lock.release()
    assert (done.exit_code, done.stdout) == (5, "")
    assert "this run" in done.stderr.splitlines()[-1]
    assert bt().exit_code == 0


def test_a_signal_in_the_last_step_interrupts_only_its_validation(bt: Bt, signals: Signals, tmp_path: Path) -> None:
    signals.after = 4
    assert bt("--val-share", 0, out=tmp_path / "without").exit_code == 0
    done = bt()
    assert (done.exit_code, done.stdout) == (130, "")
    assert "interrupted after step 4 of 4: the state is saved, the same command goes on from there" in done.stderr
    signals.after = None
    assert "step 4: validation IR@1" in bt().stderr


def test_a_finished_run_says_so(bt: Bt) -> None:
    assert bt().exit_code == 0
    again = bt()
    assert (again.exit_code, again.stdout) == (0, f"{bt.out}\n")
    assert again.stderr.splitlines()[-1].startswith("this run was finished before; the model is that of step ")


# Refused


@pytest.mark.parametrize(
    ("options", "code", "why"),
    [
        (["--seed", 1], 2, "the run in it has --seed 0, not 1"),
        (["--lr", "1e-5"], 2, "the run in it has --lr 5e-06, not 1e-05"),
        (["--micro-batch", 4], 0, "this run was finished before"),
    ],
)
def test_other_settings_are_named_where_they_would_change_the_run(
    bt: Bt, options: list[object], code: int, why: str
) -> None:
    assert bt().exit_code == 0
    done = bt(*options)
    assert done.exit_code == code
    assert why in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "code", "why"),
    [
        (
            ["--init", "/nowhere/at/all"],
            4,
            "at/all: no such folder, and no repository id either (owner/name); give one of",
        ),
        (["--steps", 3, "--epochs", 2], 2, "--epochs and --steps"),
        (["--steps", 0], 2, "--steps: '0': a whole number of at least 1 is wanted, as 1000"),
        (["--batch", 1], 2, "--batch: '1': a whole number of at least 2"),
        (["--batch", 64], 2, "--batch"),
        (["--lr", "-1"], 2, "--lr: '-1': a number above 0 is wanted, as 5e-6"),
        (["--lr", "nan"], 2, "'nan': a number above 0 is wanted"),
        (["--warmup", "50%"], 2, "--warmup: '50%': a share is between 0 and 1, as 0.05"),
        (["--save-every", "often"], 2, "--save-every: 'often' is no duration"),
        (["--freeze", "all"], 2, "--freeze: 'all' is unknown: choose one of none, towers, text, vision"),
        (["--precision", "int8"], 2, "--precision: 'int8' is unknown: choose one of auto, fp32, bf16"),
        (["--new-head", "itc"], 2, "has an ITC head already"),
        (["--val-split", "val"], 6, "only a file of Karpathy (dataset_*.json) has splits"),
        (["--replay-share", 0.3], 2, "--replay-share is the share of the pairs of --replay"),
        (["--micro-batch", 9], 2, "--micro-batch 9 is more than --batch 8"),
        (["--resume", "x"], 2, "--resume is no option of bt train: did you mean --out?"),
        (["--fp16"], 2, "--fp16 is no option of bt train: did you mean --precision?"),
        (["--grad-accum", 2], 2, "--grad-accum is no option of bt train: did you mean --micro-batch"),
        (["--images", "nowhere"], 6, "captions.jsonl, line 1: "),
    ],
)
def test_wrong_values_are_one_line(bt: Bt, options: list[object], code: int, why: str) -> None:
    done = bt(*options)
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert why in done.stderr
    assert not (bt.out / "config.json").exists()


def test_a_precision_for_searching_is_refused(bt: Bt, monkeypatch: pytest.MonkeyPatch) -> None:
    bt.options = ["--steps", "1"]
    monkeypatch.setenv("BT_PRECISION", "int8")
    done = bt()
    assert done.exit_code == 2 and "train with --precision fp32 or bf16" in done.stderr


def test_the_folder_of_the_first_model_is_no_place_for_the_new_one(bt: Bt) -> None:
    bt.out.mkdir()
    done = bt("--init", bt.out)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"error: {bt.out}: this is the folder of the --init model: give a new folder with --out\n"


def test_a_disk_without_room_is_told_before_the_first_step(bt: Bt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    done = bt("--dry-run")
    assert (done.exit_code, done.stdout) == (74, "")
    assert done.stderr.startswith(f"error: {bt.out}: the run needs ") and "1e-06 GB are free: make room" in done.stderr


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_out_that_holds_something_else_is_left_alone(bt: Bt, kind: str) -> None:
    mine = bt.out if kind == "file" else bt.out / "holiday.jpg"
    mine.parent.mkdir(exist_ok=True)
    mine.write_bytes(b"mine")
    done = bt()
    assert (done.exit_code, done.stdout) == (2, "")
    assert str(bt.out) in done.stderr and "--out" in done.stderr
    assert mine.read_bytes() == b"mine"


def test_pictures_that_are_missing_are_named_and_left_out_where_that_is_wanted(bt: Bt, data: Path) -> None:
    bt.data = data.with_name("more.jsonl")
    row = {"image": "gone.png", "captions": ["a dog"]}
    bt.data.write_text(data.read_text() + json.dumps(row) + "\n")
    done = bt()
    assert done.exit_code == 6 and "more.jsonl, line 17: " in done.stderr and "gone.png" in done.stderr
    done = bt("--skip-missing", "--dry-run")
    assert done.exit_code == 0 and "gone.png: no such file" in done.stderr
    assert "1 picture is not there: left out" in done.stdout


def test_pictures_that_all_have_one_caption_have_no_false_pairs(bt: Bt, data: Path) -> None:
    bt.data = data.with_name("same.jsonl")
    rows = [{"image": f"{number}.png", "captions": ["a photo"]} for number in range(PICTURES)]
    bt.data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = bt("--micro-batch", 2)
    assert done.exit_code == 0, done.stderr


def test_a_run_that_diverges_ends_with_advice_and_keeps_its_state(bt: Bt) -> None:
    done = bt("--lr", "1e30", "--warmup", 0, "--save-every", "1ms")
    assert (done.exit_code, done.stdout) == (4, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: training diverged: in step ") and "lower --lr" in last
    assert (bt.out / "run" / "state.pt").exists()


# As a process of its own

# Runs `bt train`, whose arguments it gets, three times, and kills all but the last run once its log has more lines. The
# imports are done once, and each run is a fork.
KILLS = """
import importlib, os, signal, sys, time
from pathlib import Path
from bridgetower_cli import app
app.wait_without_spinning()
for heavy in ("prepare", "train"):
    importlib.import_module(f"bridgetower.training.run.{heavy}")
log, *sys.argv = sys.argv[1:]
log = Path(log)
for lines in (3, 7, None):  # of the log, when the run is killed
    child = os.fork()
    if child == 0:
        os._exit(app.run())
    if lines:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (log.exists() and len(log.read_bytes().splitlines()) >= lines):
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status))
"""


@posix
@pytest.mark.process
def test_a_run_that_is_killed_ends_with_the_weights_of_one_that_was_not(
    bt: Bt, data: Path, model: Path, tmp_path: Path
) -> None:
    options = ["--batch", "8", "--steps", "8", "--eval-every", "5", "--log-every", "1", "--save-every", "1ms"]
    command = ["bt", "train", str(data), "--init", str(model), "--precision", "fp32", *options, "--out"]
    killed = tmp_path / "killed"
    log = killed / "run" / "log.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", KILLS, log, *command, killed], capture_output=True, text=True, timeout=200, check=True
    )
    assert [line for line in done.stdout.splitlines() if line.strip("-").isdigit()] == ["-9", "-9", "0"], done
    whole = bt(*options)
    assert whole.exit_code == 0 and same_weights(bt.out, killed)
    logged = events(log.read_text())
    assert [row["step"] for row in logged if row["event"] == "step"] == list(range(1, 9))
    assert [row["step"] for row in logged if row["event"] == "validation"] == [5, 8]
    assert len([row for row in logged if row["event"] == "start"]) == 3


@posix
@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_process_ends_the_step_and_saves(
    data: Path, model: Path, tmp_path: Path, number: int, code: int
) -> None:
    log = tmp_path / "new" / "run" / "log.jsonl"
    options = ["--init", str(model), "--out", "new", "--batch", "8", "--precision", "fp32", "--log-every", "1"]
    with subprocess.Popen(
        [BT, "train", str(data), *options], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        end = time.monotonic() + 60
        while not (log.exists() and '"event": "step"' in log.read_text()) and time.monotonic() < end:
            time.sleep(0.02)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    *_, ending = said.splitlines()
    assert ending.startswith("interrupted after step ") and ending.endswith("the same command goes on from there")
    assert (tmp_path / "new" / "run" / "state.pt").exists()
