"""A whole run: data and a model in, a folder out that `bt` and `transformers` take, however it was interrupted."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bridgetower.checkpoints.find import resolve
from bridgetower.checkpoints.load import load_model
from bridgetower.checkpoints.save import save
from bridgetower.errors import InputError, LockedError, MissingHeadError, UsageError
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.pictures.preprocess import Preprocessing
from bridgetower.records import Head
from bridgetower.training.distributed import Ranks
from bridgetower.training.run import train as run_train
from bridgetower.training.run.model import load
from bridgetower.training.run.prepare import Prepared, prepare_training
from bridgetower.training.run.settings import TrainSettings
from bridgetower.training.run.train import TrainResult, TrainStart, train_model
from bridgetower.training.trainer import StepReport
from bridgetower.training.validation import Validation
from tests.tiny import tiny_checkpoint, tiny_config, tiny_model, tiny_tokenizer
from tests.unit.training.run.drawn import draw_set, small

pytestmark = pytest.mark.usefixtures("decode_here")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("init"))


@pytest.fixture
def prepare(data: Path, init: Path, tmp_path: Path) -> Callable[..., Prepared]:
    def prepared(**changes: Any) -> Prepared:
        return prepare_training(TrainSettings(**{**small(data, init, tmp_path / "out"), **changes}))

    return prepared


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


def scored(monkeypatch: pytest.MonkeyPatch, *scores: float) -> list[dict[str, torch.Tensor]]:
    """Let the validations have these scores; the weights at each of them."""
    seen: list[dict[str, torch.Tensor]] = []
    left = iter(scores)

    def validate(model: BridgeTower, *_: object, step: int, **__: object) -> Validation:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        score = next(left)
        return Validation(step, score, score, 6, 6)

    monkeypatch.setattr(run_train, "validate", validate)
    return seen


def test_a_run_ends_with_a_model_that_transformers_takes_whole(prepare: Callable[..., Prepared], init: Path) -> None:
    transformers = pytest.importorskip("transformers")
    starts: list[TrainStart] = []
    steps: list[StepReport] = []
    validations: list[tuple[Validation, bool]] = []
    result = train_model(
        prepare(),
        on_start=starts.append,
        on_step=steps.append,
        on_validation=lambda found, kept: validations.append((found, kept)),
    )
    assert [(start.step, start.steps, start.eval_every, start.processes) for start in starts] == [(0, 8, 3, 1)]
    assert [report.step for report in steps] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [found.step for found, _ in validations] == [3, 6, 8]
    assert result.finished
    assert result.best == [found for found, kept in validations if kept][-1]

    reference, loading = transformers.BridgeTowerForContrastiveLearning.from_pretrained(
        result.folder, output_loading_info=True
    )
    assert not loading["missing_keys"]
    checkpoint = resolve(str(result.folder))
    assert checkpoint.preprocessing == resolve(str(init)).preprocessing
    assert checkpoint.tokenizer_sha256 == resolve(str(init)).tokenizer_sha256
    ours = load_model(checkpoint)
    assert ours.itc_head is not None
    assert torch.equal(ours.itc_head.text.weight, reference.itc_text_head.fc.weight)
    assert not torch.equal(ours.itc_head.text.weight, load_model(resolve(str(init))).itc_head.text.weight)  # type: ignore[union-attr]


def test_the_log_has_each_event(prepare: Callable[..., Prepared]) -> None:
    folder = train_model(prepare(log_every=2)).folder
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert [(line["event"], line["step"]) for line in lines] == [
        ("start", 0), ("step", 2), ("validation", 3), ("step", 4), ("step", 6), ("validation", 6), ("step", 8),
        ("validation", 8), ("end", 8),
    ]  # fmt: skip
    assert lines[1].keys() >= {
        "itc",
        "itm",
        "mlm",
        "learning_rate",
        "gradient_norm",
        "pairs_per_second",
        "seconds",
        "memory",
    }
    assert lines[2].keys() >= {"ir1", "tr1", "pictures", "texts", "kept"}


@pytest.mark.parametrize(
    ("scores", "kept"), [((50.0, 80.0, 70.0), 1), ((50.0, 80.0, 80.0), 2), ((90.0, 80.0, 70.0), 0)]
)
def test_the_best_model_is_kept_and_of_equals_the_later(
    prepare: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch, scores: tuple[float, ...], kept: int
) -> None:
    seen = scored(monkeypatch, *scores)
    result = train_model(prepare())
    model = load_model(resolve(str(result.folder)))
    assert all(torch.equal(tensor, seen[kept][name]) for name, tensor in model.state_dict().items())
    assert result.best is not None
    assert (result.best.step, result.best.score) == ((3, 6, 8)[kept], scores[kept])


def test_without_validation_the_last_model_is_kept(prepare: Callable[..., Prepared]) -> None:
    result = train_model(prepare(val_share=0.0))
    assert result.best is None
    state = torch.load(result.folder / "run" / "state.pt", weights_only=True)
    model = load_model(resolve(str(result.folder)))
    assert all(torch.equal(tensor, state["model"][name]) for name, tensor in model.state_dict().items())


def stop_at(prepared: Prepared, step: int) -> TrainResult:
    done = [0]
    return train_model(prepared, on_step=lambda report: done.append(report.step), should_stop=lambda: done[-1] >= step)


def test_a_run_that_is_stopped_has_a_model_and_goes_on_with_the_same_bits(
    prepare: Callable[..., Prepared], data: Path, init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_model(prepare_training(TrainSettings(**small(data, init, tmp_path / "whole"))))
    stopped = stop_at(prepare(), 2)
    assert (stopped.step, stopped.finished, stopped.best) == (2, False, None)
    assert resolve(str(stopped.folder)).heads == frozenset(Head)  # as it was after step 2
    stopped = stop_at(prepare(), 5)
    assert (stopped.step, stopped.best and stopped.best.step) == (5, 3)
    starts: list[TrainStart] = []
    monkeypatch.setattr("torch.get_num_threads", lambda: 77)
    result = train_model(prepare(device="auto", micro_batch=None, log_every=3, save_every=1.0), on_start=starts.append)
    assert starts[0].step == 5
    assert starts[0].changed == ("threads 77, not 1",)
    assert result.finished
    assert result.best == whole.best
    assert (result.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("step", [3, 8])
def test_a_validation_that_was_stopped_or_failed_is_done_when_the_run_goes_on(
    prepare: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    stopped = stop_at(prepare(), step)
    assert (stopped.step, stopped.finished) == (step, False)

    def failing(*_: object, **__: object) -> None:
        raise InputError("a held-out picture is gone")

    with monkeypatch.context() as patch:
        patch.setattr(run_train, "validate", failing)
        with pytest.raises(InputError, match="gone"):
            train_model(prepare())
    steps: list[int] = []
    validations: list[int] = []
    result = train_model(
        prepare(),
        on_step=lambda report: steps.append(report.step),
        on_validation=lambda found, kept: validations.append(found.step),
    )
    assert result.finished
    assert (steps, validations) == ([*range(step + 1, 9)], [at for at in (3, 6, 8) if at >= step])
    log = [json.loads(line) for line in (result.folder / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if line["event"] == "validation"] == [3, 6, 8]


def test_an_error_of_a_listener_loses_no_step(prepare: Callable[..., Prepared]) -> None:
    def broken(report: StepReport) -> None:
        if report.step == 2:
            raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        train_model(prepare(), on_step=broken)
    starts: list[TrainStart] = []
    assert train_model(prepare(), on_start=starts.append).finished
    assert starts[0].step == 2


def test_a_finished_run_says_so_and_does_nothing(prepare: Callable[..., Prepared]) -> None:
    first = train_model(prepare())
    before = (first.folder / "model.safetensors").stat().st_mtime_ns
    with prepare().folder.locked():  # no matter who holds it, or whether it could be taken
        again = train_model(prepare(), on_step=lambda report: pytest.fail("trained"))
    assert again.already
    assert again.finished
    assert (again.folder, again.step, again.best) == (first.folder, first.step, first.best)
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_that_was_killed_after_its_last_step_is_finished_by_the_next(prepare: Callable[..., Prepared]) -> None:
    first = train_model(prepare(val_share=0.0))
    before = (first.folder / "model.safetensors").read_bytes()
    (first.folder / "run" / "result.json").unlink()
    (first.folder / "config.json").unlink()
    (first.folder / "model.safetensors").unlink()
    result = train_model(prepare(val_share=0.0), on_step=lambda report: pytest.fail("trained"))
    assert result.finished
    assert not result.already
    assert (first.folder / "model.safetensors").read_bytes() == before
    assert (first.folder / "run" / "result.json").exists()


def test_a_folder_without_a_model_so_far_is_none(
    prepare: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the first model is written: there are weights, but no configuration."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bridgetower.checkpoints.save.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            train_model(prepare())
    assert not (prepare().folder.out / "config.json").exists()
    assert train_model(prepare()).finished


def test_data_and_model_may_be_moved(prepare: Callable[..., Prepared], data: Path, init: Path, tmp_path: Path) -> None:
    asked = iter([True])
    train_model(prepare(), should_stop=lambda: next(asked))
    shutil.copytree(data.parent, tmp_path / "moved")
    shutil.copytree(init, tmp_path / "init")
    prepared = prepare(data=str(tmp_path / "moved" / data.name), init=str(tmp_path / "init"))
    assert train_model(prepared).finished


def test_data_that_has_changed_is_refused(prepare: Callable[..., Prepared], init: Path, tmp_path: Path) -> None:
    mine = draw_set(tmp_path / "mine")
    asked = iter([True])
    train_model(prepare(data=str(mine)), should_stop=lambda: next(asked))
    mine.write_text(mine.read_text().replace("two cats", "three cats"))
    with pytest.raises(UsageError, match="changed since the run in it began: the content of the data;"):
        train_model(prepare(data=str(mine)))


def test_the_state_of_another_run_is_refused(
    prepare: Callable[..., Prepared], data: Path, init: Path, tmp_path: Path
) -> None:
    other = train_model(prepare_training(TrainSettings(**small(data, init, tmp_path / "other", steps=1))))
    asked = iter([True])
    mine = train_model(prepare(), should_stop=lambda: next(asked))
    (mine.folder / "run" / "state.pt").write_bytes((other.folder / "run" / "state.pt").read_bytes())
    with pytest.raises(UsageError, match=r"state\.pt: the state of a run with other settings"):
        train_model(prepare())


def test_a_picture_that_goes_missing_ends_the_run_which_goes_on_when_it_is_back(
    prepare: Callable[..., Prepared], tmp_path: Path
) -> None:
    mine = draw_set(tmp_path / "mine")
    (picture := tmp_path / "mine" / "3.png").rename(away := tmp_path / "away.png")
    away.rename(picture)
    prepared = prepare(data=str(mine), val_share=0.0)
    picture.rename(away)
    with pytest.raises(InputError, match=r"3\.png: .* restore the file"):
        train_model(prepared)
    away.rename(picture)
    assert train_model(prepare(data=str(mine), val_share=0.0)).finished


def test_a_run_that_cannot_begin_leaves_the_folder_free(
    prepare: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("bridgetower.training.run.prepare.join", lambda device: Ranks(0, 7))
        with pytest.raises(UsageError, match="--batch 6 is fewer than the 7 processes"):
            prepare()
    prepared = prepare()
    with monkeypatch.context() as patch:
        patch.setattr(run_train, "load", lambda *_: pytest.fail("no memory"))
        with pytest.raises(pytest.fail.Exception):
            train_model(prepared)
    assert train_model(prepare(lr=1e-4, steps=1)).finished


def test_the_model_that_it_began_with_may_go_away_while_it_learns(
    prepare: Callable[..., Prepared], init: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(init, mine)
    result = train_model(prepare(init=str(mine)), on_step=lambda report: shutil.rmtree(mine, ignore_errors=True))
    assert resolve(str(result.folder)).tokenizer_sha256 == resolve(str(init)).tokenizer_sha256


def test_a_run_that_is_busy_is_told_before_its_data_is_checked(prepare: Callable[..., Prepared]) -> None:
    with prepare().folder.locked(), pytest.raises(LockedError, match="has been writing this run since"):
        prepare()


def test_processes_that_do_not_share_the_folder_are_refused(
    prepare: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Apart(Ranks):
        def agree(self, text: str, device: torch.device) -> bool:
            seen.append(text)
            return False

    monkeypatch.setattr("bridgetower.training.run.prepare.join", lambda device: Apart())
    with pytest.raises(UsageError, match="the folder is not the same for all processes, or the data are not"):
        prepare()
    assert json.loads(seen[0])["pid"] == os.getpid()


def test_epochs_become_steps_and_a_validation_each_that_has_enough(
    prepare: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(steps=None, epochs=4, eval_every=None)  # 18 pairs to train on, 6 a batch
    assert (prepared.steps, prepared.eval_every) == (12, 12)
    assert prepare(steps=None, epochs=40, eval_every=None).eval_every == 50
    monkeypatch.setattr("bridgetower.training.run.prepare._LEAST_BETWEEN", 2)
    assert prepare(steps=None, epochs=4, eval_every=None).eval_every == 3


@pytest.mark.parametrize(("kept", "wanted"), [(None, 32), (48, 48)])
def test_a_new_head_makes_a_model_searchable(
    prepare: Callable[..., Prepared], tmp_path: Path, kept: int | None, wanted: int
) -> None:
    """Its vectors have the length that the configuration names, else half the width of the network."""
    plain = tiny_checkpoint(
        tmp_path / "plain", tiny_config(contrastive_hidden_size=kept), frozenset({Head.ITM, Head.MLM})
    )
    result = train_model(prepare(init=str(plain), new_heads=["itc"], lr=1e-4))
    found = resolve(str(result.folder))
    assert found.heads == frozenset(Head)
    assert found.config.contrastive_hidden_size == wanted
    assert load_model(found).embed_text(torch.tensor([[0, 9, 2]]), torch.ones(1, 3, dtype=torch.bool)).shape == (
        1,
        wanted,
    )


def test_new_heads_are_drawn_from_the_seed(prepare: Callable[..., Prepared], tmp_path: Path) -> None:
    plain = tiny_checkpoint(tmp_path / "plain", heads=frozenset({Head.ITC}))
    drawn = {
        seed: load(resolve(str(plain)), (Head.ITM, Head.MLM), seed, torch.device("cpu")).state_dict() for seed in (0, 1)
    }
    again = load(resolve(str(plain)), (Head.ITM, Head.MLM), 0, torch.device("cpu")).state_dict()
    assert all(torch.equal(again[name], drawn[0][name]) for name in again)
    different = {name for name in again if not torch.equal(drawn[0][name], drawn[1][name])}
    assert different == {"itm_head.weight", "mlm_head.transform.weight", "mlm_head.decoder.weight"}


def test_a_head_that_is_there_is_not_new(prepare: Callable[..., Prepared]) -> None:
    with pytest.raises(UsageError, match="it has an ITM head already; leave out --new-head itm"):
        prepare(new_heads=["itm"])


def test_without_an_itc_head_nothing_is_validated(prepare: Callable[..., Prepared], tmp_path: Path, data: Path) -> None:
    plain = tiny_checkpoint(tmp_path / "plain", heads=frozenset({Head.ITM, Head.MLM}))
    prepared = prepare(init=str(plain), val_share=None)
    assert prepared.report.validation is None
    assert train_model(prepared).best is None
    for asked in ({"val": str(data), "val_share": None}, {"val_share": 0.25}):
        with pytest.raises(UsageError, match="validation needs an ITC head: add --new-head itc, or leave out --val"):
            prepare(init=str(plain), out=str(tmp_path / "other"), **asked)


def test_a_model_without_heads_learns_nothing(prepare: Callable[..., Prepared], tmp_path: Path) -> None:
    bare = tiny_checkpoint(tmp_path / "bare", heads=frozenset())
    with pytest.raises(MissingHeadError, match="it has no head that could learn: add one, with --new-head itc"):
        prepare(init=str(bare))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_weights_keep_the_type_that_they_had_in_the_file(
    prepare: Callable[..., Prepared], tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = tmp_path / "stored"
    save(tiny_model(), folder, preprocessing=Preprocessing(shortest_edge=96, crop_size=96), dtype=dtype)
    tiny_tokenizer(folder)
    result = train_model(prepare(init=str(folder), steps=1))
    assert {tensor.dtype for tensor in weights(result.folder).values()} == {dtype}
    state = torch.load(result.folder / "run" / "state.pt", weights_only=True)
    assert {tensor.dtype for tensor in state["model"].values()} == {torch.float32}


def test_special_tokens_are_never_masked(prepare: Callable[..., Prepared]) -> None:
    prepared = prepare()
    weights = prepared.maskable()
    assert weights.shape == (400,)
    assert [token for token in range(400) if not weights[token]] == [0, 1, 2, 3, 4]


def test_a_dry_run_leaves_only_its_notes(prepare: Callable[..., Prepared]) -> None:
    prepared = prepare()
    assert {path.relative_to(prepared.folder.out).as_posix() for path in prepared.folder.out.rglob("*")} == {
        "run", "run/pictures.jsonl", "run/lock",
    }  # fmt: skip
    assert train_model(prepare(lr=1e-4, steps=1)).finished  # so other settings are free


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The last bits of sums depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
