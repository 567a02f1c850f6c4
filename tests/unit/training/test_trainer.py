"""The trainer: it learns, resumes with the same bits, stops where it is told, and tells what went wrong."""

import math
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bridgetower.errors import DivergedError, InputError, OutputError, ResourceError, UsageError
from bridgetower.network.bridgetower import BridgeTower
from bridgetower.records import Head
from bridgetower.training import trainer
from bridgetower.training.batch import Batch
from bridgetower.training.distributed import Ranks
from bridgetower.training.objective import backward
from bridgetower.training.recipe import Recipe
from bridgetower.training.state import RunState
from bridgetower.training.trainer import StepReport, telling, train
from tests.tiny import tiny_config, tiny_model
from tests.unit.training.pairs_to_learn import MASK, MASKABLE, NO_DROPOUT, endless, make_batch


def run(model: BridgeTower, recipe: Recipe, **options: Any) -> Generator[StepReport]:
    return train(model, options.pop("batches", endless), recipe, mask_id=MASK, maskable=MASKABLE, seed=1, **options)


def quick(steps: int, **changes: Any) -> Recipe:
    return Recipe(steps, **{"learning_rate": 2e-3, "new_factor": 1.0, "warmup": 0.1, "precision": "fp32", **changes})


def total(report: StepReport) -> float:
    assert report.itc is not None
    assert report.itm is not None
    assert report.mlm is not None
    return report.itc + report.itm + report.mlm


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_training_learns() -> None:
    model = tiny_model(NO_DROPOUT).initialise(torch.Generator().manual_seed(3))
    totals = [total(report) for report in run(model, quick(60))]
    assert sum(totals[-5:]) < 0.35 * sum(totals[:5])
    assert not model.training


def test_a_run_that_was_cut_off_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    """With dropout; a generator that is dropped after a step has saved what was before it, as a killed process."""
    whole = tiny_model()
    reports = list(run(whole, quick(9)))
    state = RunState(tmp_path / "state.pt")
    first = []
    for report in run(tiny_model(), quick(9), state=state, save_every=0.0):
        first.append(report)
        if report.step == 6:
            break
    resumed = tiny_model(seed=5)  # nothing of it is left
    rest = list(run(resumed, quick(9), state=state))
    assert [report.step for report in rest] == [6, 7, 8, 9]
    assert [*map(total, first[:5]), *map(total, rest)] == [total(report) for report in reports]
    assert same_bits(resumed.state_dict(), whole.state_dict())
    assert list(run(resumed, quick(9), state=state)) == []


@pytest.mark.parametrize(("cost", "expected"), [(0.0, [2, 4, 6, 8, 9]), (0.125, [2, 5, 8, 9])])
def test_it_is_saved_as_often_as_is_asked_unless_that_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost: float, expected: list[int]
) -> None:
    """A step takes a second, and 2 seconds are asked for."""
    now = [0.0]
    saved: list[int] = []

    def save(state: RunState, model: object, optimiser: object, step: int) -> None:
        saved.append(step)
        now[0] += cost

    monkeypatch.setattr(RunState, "save", save)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    for _ in run(tiny_model(), quick(9), state=RunState(tmp_path / "state.pt"), save_every=2.0):
        now[0] += 1
    assert saved == expected


def test_it_stops_after_the_step_in_which_it_is_told_to(tmp_path: Path) -> None:
    state, asked = RunState(tmp_path / "state.pt"), iter([False, False, True])
    reports = list(run(tiny_model(), quick(9), state=state, should_stop=lambda: next(asked)))
    assert [report.step for report in reports] == [1, 2, 3]
    assert [report.step for report in run(tiny_model(), quick(9), state=state)] == [4, 5, 6, 7, 8, 9]


def test_processes_that_see_different_folders_are_refused(tmp_path: Path) -> None:
    compared: list[str] = []

    class Apart(Ranks):
        def agree(self, text: str, device: torch.device) -> bool:
            compared.append(text)
            return False

    state = RunState(tmp_path / "state.pt", "mine")
    list(run(tiny_model(), quick(1), state=state))
    with pytest.raises(UsageError, match="the folder is not the same for all processes"):
        list(run(tiny_model(), quick(2), state=state, ranks=Apart()))
    assert compared == ["1 mine"]


def test_batches_are_closed_also_by_an_error() -> None:
    closed: list[int] = []
    held: list[Iterator[Batch]] = []  # a generator that nobody holds is closed anyway

    def counting(step: int) -> Iterator[Batch]:
        try:
            yield from endless(step)
        finally:
            closed.append(step)

    def batches(step: int) -> Iterator[Batch]:
        held.append(counting(step))
        return held[-1]

    list(run(tiny_model(), quick(1), batches=batches))
    model = tiny_model()
    with torch.no_grad():
        model.text_pooler.weight.fill_(float("nan"))
    with pytest.raises(DivergedError):
        list(run(model, quick(1), batches=batches))
    assert closed == [0, 0]


def test_numbers_that_are_not_finite_end_the_run_and_leave_the_last_state(tmp_path: Path) -> None:
    def batches(step: int) -> Iterator[Batch]:
        for number, batch in enumerate(endless(step), start=step):
            if number == 3:
                batch.pixels[0, 0, 0, 0] = float("inf")
            yield batch

    state = RunState(tmp_path / "state.pt")
    reports = run(tiny_model(), quick(9, learning_rate=1e-3), batches=batches, state=state, save_every=0.0)
    with pytest.raises(
        DivergedError, match=r"diverged: in step 4 the loss \(ITC, ITM, MLM\) is not .* lower --lr than 0\.001$"
    ):
        list(reports)
    model = tiny_model(seed=5)
    rest = run(model, quick(9), state=state)
    assert next(rest).step == 4
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_in_bf16_the_precision_may_be_the_cause_of_such_numbers() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.text_pooler.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match=r"or --precision fp32$"):
        list(run(model, quick(1, precision="bf16")))


@pytest.mark.parametrize(
    ("recipe", "advice"),
    [
        (
            Recipe(1),
            "6 pictures at once: the same command with --micro-batch 3 and --gradient-checkpointing goes on from the "
            "last state; a new run can take --freeze towers",
        ),
        (
            Recipe(1, micro_batch=2, gradient_checkpointing=True, freeze="towers"),
            "2 pictures at once: the same command with --micro-batch 1 goes on from the last state",
        ),
        (
            Recipe(1, micro_batch=1, gradient_checkpointing=True, freeze="towers"),
            "1 picture at once: take a smaller model",
        ),
        (
            Recipe(1, micro_batch=128, gradient_checkpointing=True),
            "6 pictures at once: the same command with --micro-batch 3 goes on from the last state; a new run can take "
            "--freeze towers",
        ),
    ],
)
def test_a_lack_of_memory_names_what_takes_less(recipe: Recipe, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(trainer, "backward", full)
    with pytest.raises(ResourceError) as caught:
        list(run(tiny_model(), recipe))
    assert str(caught.value) == f"not enough memory to train on {advice}"


def test_a_lack_of_memory_for_the_optimiser_is_not_met_with_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(torch.optim.AdamW, "step", full)
    with pytest.raises(ResourceError) as caught:
        list(run(tiny_model(), Recipe(1)))
    told = "not enough memory for the moments of the optimiser: a new run can take --freeze towers"
    assert str(caught.value) == told


@pytest.mark.parametrize("at", ["batch", "backward", "optimiser", "bound"])
def test_an_error_loses_no_step_that_was_whole(at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while weights change leaves those of no step: then the last state on the disk stays."""
    whole = tiny_model()
    list(run(whole, quick(9)))
    state = RunState(tmp_path / "state.pt")

    def some(step: int) -> Iterator[Batch]:
        for number, batch in enumerate(endless(step)):
            if number == 4:
                raise RuntimeError("out of memory")
            yield batch

    def failing(part: Any) -> Any:
        calls = iter(range(9))

        def call(*given: Any, **options: Any) -> Any:
            if next(calls) == 4:
                raise RuntimeError("out of memory")
            return part(*given, **options)

        return call

    with monkeypatch.context() as patched:
        if at == "backward":
            patched.setattr(trainer, "backward", failing(backward))
        elif at == "optimiser":
            patched.setattr(torch.optim.AdamW, "step", failing(torch.optim.AdamW.step))
        elif at == "bound":
            patched.setattr(trainer, "_bound_logit_scale", failing(trainer._bound_logit_scale))
        with pytest.raises((ResourceError, RuntimeError), match="memory"):
            list(run(tiny_model(), quick(9), state=state, batches=some if at == "batch" else endless))
    resumed = tiny_model(seed=5)
    rest = list(run(resumed, quick(9), state=state))
    assert [report.step for report in rest] == [*range(1 if at in ("optimiser", "bound") else 5, 10)]
    if at in ("batch", "backward"):
        assert same_bits(resumed.state_dict(), whole.state_dict())


def test_an_error_of_the_caller_loses_no_step(tmp_path: Path) -> None:
    state = RunState(tmp_path / "state.pt")
    reports = run(tiny_model(), quick(4), state=state)

    def read() -> None:
        with telling(reports):
            assert [next(reports).step, next(reports).step] == [1, 2]
            raise InputError("a held-out picture is gone")

    with pytest.raises(InputError, match="gone"):
        read()
    assert next(run(tiny_model(), quick(4), state=state)).step == 3


def test_a_state_that_an_error_leaves_unsaved_is_told_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutputError("no room")

    reports = run(tiny_model(), quick(4), state=RunState(tmp_path / "state.pt"), pauses=lambda step: step == 1)
    assert [next(reports).step, next(reports).step] == [1, 2]
    monkeypatch.setattr(RunState, "save", full)
    with pytest.raises(InputError, match=r"^a picture is gone; the last state on the disk is of step 1, not 2$"):
        reports.throw(InputError("a picture is gone"))


def test_it_is_saved_before_a_pause(tmp_path: Path) -> None:
    state = RunState(tmp_path / "state.pt")
    there = [state.file.exists() for _ in run(tiny_model(), quick(3), state=state, pauses=lambda step: step == 2)]
    assert there == [False, True, True]


def test_the_logit_scale_stays_in_its_bound() -> None:
    model = tiny_model(NO_DROPOUT)
    assert model.itc_head is not None
    with torch.no_grad():
        model.itc_head.logit_scale.fill_(5.0)
    list(run(model, quick(1)))
    assert model.itc_head.logit_scale.item() == pytest.approx(math.log(100))


def test_the_gradient_is_cut_to_a_length(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    step = torch.optim.AdamW.step

    def spy(optimiser: torch.optim.AdamW) -> None:
        gradients = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        lengths.append(float(torch.nn.utils.get_total_norm(gradients)))
        step(optimiser)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    (report,) = run(tiny_model(NO_DROPOUT), quick(1, clip_norm=1e-3))
    assert lengths == [pytest.approx(1e-3, rel=1e-2)]
    assert report.gradient_norm > 0.1


def test_each_step_is_reported() -> None:
    (report,) = run(tiny_model(), quick(1))
    assert report.pairs == 6
    assert report.seconds > 0
    assert report.memory is None or report.memory > 10**7
    told = report.as_json()
    assert told["step"] == 1
    assert told["pairs_per_second"] == pytest.approx(6 / report.seconds)


def test_a_head_that_is_not_there_has_no_loss() -> None:
    (report,) = run(tiny_model(heads=frozenset({Head.ITM})), quick(1))
    assert report.itm is not None
    assert (report.itc, report.mlm) == (None, None)


@pytest.mark.parametrize(
    ("freeze", "kept"), [("text", ["text_"]), ("vision", ["vision_"]), ("towers", ["text_", "vision_"])]
)
def test_a_frozen_tower_keeps_its_bits(freeze: Any, kept: list[str]) -> None:
    model = tiny_model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    list(run(model, quick(2, freeze=freeze, warmup=0.5)))
    same = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert same == {name for name in before if name.startswith(tuple(f"{tower}tower." for tower in kept))}


def test_training_leaves_attention_as_it_found_it() -> None:
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(False)  # the default
    next(run(tiny_model(), quick(2, precision="bf16")))
    assert not torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()


def test_a_model_with_tied_words_learns_and_stays_tied(tmp_path: Path) -> None:
    model, state = tiny_model(tiny_config(tie_word_embeddings=True)), RunState(tmp_path / "state.pt")
    list(run(model, quick(2), state=state))
    again = tiny_model(tiny_config(tie_word_embeddings=True), seed=3)
    assert list(run(again, quick(2), state=state)) == []
    assert again.mlm_head is not None
    assert again.mlm_head.decoder.weight is again.text_tower.word.weight
    assert same_bits(again.state_dict(), model.state_dict())


def test_a_batch_is_moved_to_the_device_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    move = Batch.to

    def to(batch: Batch, device: torch.device) -> Batch:
        asked.append(device)
        return replace(move(batch, device))

    monkeypatch.setattr(Batch, "to", to)
    list(run(tiny_model(), quick(1)))
    assert asked == [torch.device("cpu")]
    assert make_batch().pixels.device == torch.device("cpu")
