"""Several processes give the gradients and the weights that one gives, whatever each of them computes at once."""

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.distributed
from torch import Tensor

from bridgetower.errors import ProcessError, UsageError
from bridgetower.records import Head
from bridgetower.training.batch import Batch
from bridgetower.training.distributed import ONE_RANK, Ranks, join, leave, sum_gradients
from bridgetower.training.objective import backward
from bridgetower.training.recipe import Precision, Recipe
from tests.tiny import ALL_HEADS, tiny_config, tiny_model

PICTURES = 6
BF16 = 0.1  # the tolerance, relative to the largest number of a tensor


@dataclass(frozen=True)
class Case:
    """A step of one process, or of two."""

    further: int = 4  # texts
    micro_batch: int | None = 2
    freeze: str = "none"
    heads: frozenset[Head] = ALL_HEADS
    tied: bool = False  # the word head and the word embeddings
    precision: Precision = "fp32"


CASES = [
    Case(further=0, micro_batch=None),
    Case(),
    Case(micro_batch=3, freeze="vision"),
    Case(heads=frozenset({Head.ITM, Head.MLM})),
    Case(heads=frozenset({Head.ITC}), micro_batch=None),
    Case(tied=True),
    Case(precision="bf16"),
]


def whole_batch(further: int) -> Batch:
    generator = torch.Generator().manual_seed(further)
    texts = PICTURES + further
    ids = torch.randint(9, 400, (texts, 6), generator=generator)
    mask = torch.ones(texts, 6, dtype=torch.bool)
    mask[1::2, 4:] = False
    ids[~mask] = 1
    true_of = torch.zeros(texts, PICTURES, dtype=torch.bool)
    true_of[torch.arange(PICTURES), torch.arange(PICTURES)] = True
    true_of[1, 4] = True
    if further:
        true_of[7, 0] = true_of[7, 5] = true_of[9, 3] = True
    return Batch(torch.randn(PICTURES, 3, 96, 96, generator=generator), ids, mask, true_of)


def step(ranks: Ranks, case: Case) -> dict[str, Tensor]:
    """The losses, and the gradients and the weights of one step of AdamW in which each process has some pictures."""
    text = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = tiny_model(tiny_config(text=text, tie_word_embeddings=case.tied), case.heads).train()
    model.vision_tower.requires_grad_(case.freeze == "none")
    batch = whole_batch(case.further)
    if ranks.size > 1:
        own = slice(0, 2) if ranks.rank == 0 else slice(2, PICTURES)  # they need not have equally many
        batch = replace(batch, pixels=batch.pixels[own], start=own.start)
    recipe = Recipe(1, micro_batch=case.micro_batch, precision=case.precision)
    maskable = (torch.arange(400) >= 9).float()
    losses = backward(model, batch, recipe, mask_id=4, maskable=maskable, seed=1, step=2, ranks=ranks)
    sum_gradients(model, ranks)
    told = {name: getattr(losses, name) for name in ("itc", "itm", "mlm")}
    found = {f"loss {name}": torch.tensor(loss) for name, loss in told.items() if loss is not None}
    gradients = {f"gradient {n}": p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    # A large eps: AdamW makes steps of its full length out of the rounding of gradients that are zero.
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2, eps=1e-3)
    optimiser.step()
    weights = {f"weight {name}": parameter.detach().clone() for name, parameter in model.named_parameters()}
    return found | gradients | weights


@pytest.mark.process
def test_two_processes_are_as_one(tmp_path: Path) -> None:
    command = [sys.executable, "-P", __file__, str(tmp_path)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    running = [subprocess.Popen(command, env=environment | {"RANK": str(rank)}) for rank in range(2)]
    expected = [step(ONE_RANK, case) for case in CASES]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["agree"] == [True, False]
        for case, one, two in zip(CASES, expected, found["steps"], strict=True):
            assert two.keys() == one.keys()
            assert sum(name.startswith("loss") for name in one) == len(case.heads)
            if case.precision == "fp32":
                torch.testing.assert_close(two, one, rtol=1e-4, atol=2e-6)  # tells the name of what differs
                continue
            for name, number in one.items():  # products of other shapes are rounded in other places
                difference = float((two[name] - number).abs().max())
                assert difference <= BF16 * max(float(number.abs().max()), 0.05), name


def test_one_process_leaves_its_gradients_alone() -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.grad = torch.ones(2, 2)
    sum_gradients(model, ONE_RANK)
    assert torch.equal(model.weight.grad, torch.ones(2, 2))
    assert model.bias.grad is None


def test_a_process_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise RuntimeError("Connection closed by peer [127.0.0.1]:4711")

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.distributed, "all_reduce", lost)
    monkeypatch.setattr(torch.distributed, "barrier", lost)
    for together in (lambda: Ranks(0, 2).sum(torch.ones(2)), lambda: leave(Ranks(1, 2))):
        with pytest.raises(
            ProcessError, match="another process of the run ended, or cannot be reached: see its message"
        ):
            together()
    monkeypatch.setattr(torch.distributed, "all_reduce", full)
    with pytest.raises(torch.OutOfMemoryError):
        Ranks(0, 2).sum(torch.ones(2))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """How PyTorch was told to begin, where torchrun has started the second process of two."""
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "::",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    told: list[tuple[object, ...]] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(
        torch.distributed,
        "init_process_group",
        lambda backend, *, timeout, device_id: told.append((backend, device_id)),
    )
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    return told


@pytest.mark.parametrize(("visible", "own"), [(1, 0), (2, 1), (8, 1)])
def test_each_process_takes_the_gpu_that_it_sees(
    begun: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch, visible: int, own: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0" if visible == 1 else "0,1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    assert join("cuda") == Ranks(1, 2)
    assert begun == [("nccl", torch.device("cuda", own))]


def test_processes_that_have_no_device_of_their_own_are_refused(
    begun: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for local, visible in (("1", 1), ("2", 2)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda number=visible: number)
        monkeypatch.setenv("LOCAL_RANK", local)
        with pytest.raises(UsageError, match=f"more processes on this machine than its {visible} GPUs"):
            join("cuda")
    with pytest.raises(UsageError, match="--device mps: only one process can train on it; use --device cpu"):
        join("mps")
    assert not begun
    assert join("cpu") == Ranks(1, 2)
    assert begun == [("gloo", None)]


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    both = Ranks(rank, 2)
    agree = [both.agree(text, torch.device("cpu")) for text in ("step 3", f"step {rank}")]
    torch.save({"agree": agree, "steps": [step(both, case) for case in CASES]}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
