"""Which engine should run the vision tower in int8 on a CPU: speed, likeness to fp32, and what each one costs.

    python benchmarks/int8_engines.py --size base
    python benchmarks/int8_engines.py --engine "torch x86" openvino    # those whose names begin like this

A tool for deciding (docs/decisions/2026-11-21-int8-engine.md), not a claim: `make bench` leaves it out. What is not
installed (openvino, nncf, torchao) or not possible on this processor is a row that says so. For each engine:

    error           1 - cosine of the ITC vectors with those of fp32, of the worst picture
    x fp32          its speed over that of PyTorch in fp32, round by round: the median of these ratios
    import s        of its packages, in a process that has imported torch
    prepare s       from the loaded network until it can run, as when the tool meets a checkpoint for the first time
    again s         the same where the first time left files behind
    extra mb        resident memory that it added, beside the network in fp32
    installed mb    of its packages and what they require beyond what bt does

"bt" is the layer that bt runs, `QuantizedLinear`. "7 bits" is what activations have: without VNNI two products at a
time are added up in 16 bits, which 8 may overflow.
"""

import argparse
import contextlib
import copy
import ctypes
import gc
import importlib
import importlib.util
import os
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import processes
from benchmarks.checkpoints import checkpoint
from benchmarks.embedding import LIMITS, error
from benchmarks.harness import Array, Report, command_line, take_turns
from benchmarks.pictures import photo
from bridgetower.blocks import Linear
from bridgetower.model import BridgeTower
from bridgetower.preprocess import preprocess
from bridgetower.quantized import QuantizedLinear
from bridgetower.weights import load_model, resolve

_T = TypeVar("_T")
Run = Callable[[], Array]  # pixels -> vectors, the pixels being given

TOO_SLOW = 4  # times fp32: such an engine is not given more rounds than its first
PICTURES = 4
CALIBRATION = 12  # pictures that static quantisation looks at
IMPORT = """
import importlib, sys, time, torch
sys.modules["openvino_telemetry"] = None
begin = time.perf_counter()
for name in sys.argv[1:]:
    importlib.import_module(name)
print(time.perf_counter() - begin)
"""


@dataclass(frozen=True, slots=True)
class Job:
    """What every engine is given."""

    network: BridgeTower  # fp32; not to be changed
    pixels: Array  # [B, 3, H, W]
    calibration: Array  # [CALIBRATION, 3, H, W], other pictures
    folder: Path  # empty, for the files of this engine


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to run the tower. `prepare` and `again` raise RuntimeError where the processor cannot."""

    name: str
    prepare: Callable[[Job], Run]
    again: Callable[[Job], Run] | None = None  # from what `prepare` left in the folder
    packages: tuple[str, ...] = ()  # that it imports beside torch; distributions have the same names


# PyTorch


def on_torch(network: BridgeTower, job: Job) -> Run:
    pixels = torch.from_numpy(job.pixels)

    @torch.inference_mode()
    def run() -> Array:
        vectors: Array = network.embed_image(pixels).numpy()
        return vectors

    return run


def fp32(job: Job) -> Run:
    return on_torch(job.network, job)


def own_modules(network: BridgeTower) -> BridgeTower:
    """The same parameters in modules of its own, which may be replaced."""
    return copy.deepcopy(network, {id(parameter): parameter for parameter in network.parameters()})


def replaced(layer: Callable[[Linear], nn.Module], job: Job) -> Run:
    """The vision tower with `layer` in place of every linear layer."""
    network = own_modules(job.network)
    for module in list(network.vision_tower.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Linear):
                setattr(module, name, layer(child))
    return on_torch(network, job)


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [O, I] -> int8 [O, I], symmetric, and a scale for each output [O]."""
    scales = (weight.abs().amax(dim=1) / 127).clamp_min(1e-12)
    return (weight / scales[:, None]).round().clamp(-127, 127).to(torch.int8), scales


class DynamicLinear(nn.Module):
    """`quantized.linear_dynamic`: activations are quantised inside, with one scale for the whole tensor."""

    def __init__(self, backend: str, bits: int, linear: nn.Linear) -> None:
        super().__init__()
        weight, scales = quantised(linear.weight.detach())
        zeros = torch.zeros(len(scales), dtype=torch.int64)
        with (
            backend_for_packing(backend),
            warnings.catch_warnings(action="ignore"),
        ):  # quantised tensors will go some day
            per_channel = torch._make_per_channel_quantized_tensor(weight, scales.double(), zeros, 0)
            self.packed = torch.ops.quantized.linear_prepack(per_channel, linear.bias.detach())
        self.reduce_range = bits == 7

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.quantized.linear_dynamic(x, self.packed, self.reduce_range)
        return y


@contextlib.contextmanager
def backend_for_packing(name: str) -> Iterator[None]:
    """What packs weights computes with them, too. RuntimeError where this build of PyTorch has no such backend."""
    usual = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = usual


class TokenLinear(nn.Module):
    """The operator of `QuantizedLinear` with a scale for each token: what one becomes depends on no other."""

    def __init__(self, bits: int, linear: nn.Linear) -> None:
        super().__init__()
        weight, self.scales = quantised(linear.weight.detach())
        self.zeros = torch.zeros(len(self.scales), dtype=torch.int64)
        self.packed = torch.ops.onednn.qlinear_prepack(weight, None)
        self.bias = linear.bias.detach()
        self.bits = bits

    def product(self, x: Tensor, scale: float, zero: int, bias: Tensor | None) -> Tensor:
        """uint8 [..., I] -> float32 [..., O]."""
        none: tuple[str, list[None], str] = ("none", [], "none")  # nothing is fused with it
        output = (1.0, 0, torch.float32)
        args = (x, scale, zero, self.packed, self.scales, self.zeros, bias, *output, *none)
        y: Tensor = torch.ops.onednn.qlinear_pointwise(*args)
        return y

    def forward(self, x: Tensor) -> Tensor:
        middle = 2 ** (self.bits - 1)
        scales = torch.linalg.vector_norm(x, float("inf"), -1, keepdim=True).clamp_min(1e-12) / (middle - 1)
        q = torch.addcmul(torch.tensor(middle + 0.5), x, 1 / scales).to(torch.uint8)
        return torch.addcmul(self.bias, self.product(q, 1.0, middle, None), scales)


class IntLinear(nn.Module):
    """`_int_mm`: int8 times int8 to int32, and all else by us; each token has a scale of its own."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.scales = quantised(linear.weight.detach())
        self.bias = linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, I] -> [B, N, O]."""
        tokens, scales = quantised(x.flatten(0, -2))
        y = torch._int_mm(tokens, self.weight.T) * scales[:, None] * self.scales + self.bias
        return y.view(*x.shape[:-1], -1)


def torchao(job: Job) -> Run:
    """As its documentation has it, but for `torch.compile`: that needs a C++ compiler and minutes at every start."""
    quantisation = importlib.import_module("torchao.quantization")
    network = own_modules(job.network)
    quantisation.quantize_(network.vision_tower.layers, quantisation.Int8DynamicActivationInt8WeightConfig())
    return on_torch(network, job)


# OpenVINO


class ImageSide(nn.Module):
    """`embed_image` as a module, which is what OpenVINO converts."""

    def __init__(self, network: BridgeTower) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, E]."""
        return self.network.embed_image(pixels)


def openvino(quantise: Callable[[Any, Job], Any], properties: dict[str, str], job: Job) -> Run:
    """Traced, converted, quantised, written, compiled. The trace is of this batch size; no other will do."""
    from_torch = importlib.import_module("openvino").convert_model
    example = torch.from_numpy(job.pixels)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # the batch size becomes a constant, as we say
        traced = torch.jit.trace(ImageSide(job.network), example, check_trace=False)  # checking takes 10 s
        model = quantise(from_torch(traced, example_input=example, input=list(example.shape)), job)
    importlib.import_module("openvino").save_model(model, job.folder / "tower.xml", compress_to_fp16=False)
    del model, traced
    return openvino_again(properties, job)


def openvino_again(properties: dict[str, str], job: Job) -> Run:
    """From the file, and from the cache that an earlier compilation of it left."""
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # of what is not int8: bf16 would be another comparison
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
        "CACHE_DIR": str(job.folder / "cache"),
    }
    core = importlib.import_module("openvino").Core()
    compiled = core.compile_model(str(job.folder / "tower.xml"), "CPU", settings | properties)
    return lambda: np.array(compiled(job.pixels)[0])


def as_it_is(model: Any, job: Job) -> Any:
    return model


def weights_only(model: Any, job: Job) -> Any:
    return importlib.import_module("nncf").compress_weights(model)  # int8 for each output


def weights_and_activations(model: Any, job: Job) -> Any:
    nncf = importlib.import_module("nncf")
    batches = np.split(job.calibration, CALIBRATION // len(job.pixels))
    return nncf.quantize(model, nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER)


# All of them


def engines() -> list[Engine]:
    """The first is the reference."""
    found = [Engine("torch fp32", fp32), Engine("bt", partial(replaced, QuantizedLinear.of))]
    for bits in (7, 8):
        for backend in ("x86", "fbgemm", "onednn"):
            layer = partial(DynamicLinear, backend, bits)
            found.append(Engine(f"torch {backend}, {bits} bits", partial(replaced, layer)))
        found.append(Engine(f"torch qlinear by token, {bits} bits", partial(replaced, partial(TokenLinear, bits))))
    found.append(Engine("torch _int_mm", partial(replaced, IntLinear)))
    found.append(Engine("torchao, uncompiled", torchao, packages=("torchao",)))
    dynamic = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}
    for name, quantise, properties, packages in (
        ("openvino fp32", as_it_is, {}, ("openvino",)),
        ("openvino int8, dynamic", weights_only, dynamic, ("openvino", "nncf")),
        ("openvino int8, static", weights_and_activations, {}, ("openvino", "nncf")),
    ):
        prepare, again = partial(openvino, quantise, properties), partial(openvino_again, properties)
        found.append(Engine(name, prepare, again, packages))
    return found


def measure(report: Report, chosen: list[Engine], size: str, args: argparse.Namespace, scratch: Path) -> None:
    """Prepare and check each engine, then time those that are right, in turns."""
    found = resolve(str(checkpoint(size, args.work)))
    network = load_model(found)
    pictures = [preprocess(photo(seed), found.preprocessing) for seed in range(args.pictures + CALIBRATION)]
    pixels, calibration = np.stack(pictures[: args.pictures]), np.stack(pictures[args.pictures :])

    runs: dict[str, Run] = {}
    rows: dict[str, dict[str, Any]] = {}
    reference: Array | None = None
    limit_s = float("inf")
    for number, engine in enumerate(chosen):
        row = rows[engine.name] = {"size": size, "contender": engine.name}
        missing = [name for name in engine.packages if importlib.util.find_spec(name) is None]
        if missing:
            row["note"] = f"not installed: {', '.join(missing)}"
            continue
        row["packages"] = ", ".join(f"{name} {metadata.version(name)}" for name in engine.packages)
        job = Job(network, pixels, calibration, scratch / f"{size}-{number}")
        job.folder.mkdir()
        for name in engine.packages:
            importlib.import_module(name)
        before = resident_mb()
        try:
            run, prepare_s = timed(partial(engine.prepare, job))
            vectors, first_s = timed(run)
        except RuntimeError as refusal:
            row["note"] = f"not on this processor: {str(refusal).strip().splitlines()[0]}"
            continue
        sys.stderr.write(f"{engine.name}: prepared in {prepare_s:.2g} s, first run {first_s:.2g} s\n")
        after = resident_mb()
        if reference is None:
            reference, limit_s = vectors, TOO_SLOW * timed(run)[1]
        row["error"] = error(vectors, reference)
        if engine.packages:
            row["import_s"] = float(processes.run([sys.executable, "-c", IMPORT, *engine.packages]))
            row["installed_mb"] = installed_mb(engine.packages)
        row["prepare_s"] = prepare_s
        if engine.again is not None:
            row["again_s"] = timed(partial(engine.again, job))[1]
        row["extra_mb"] = None if before is None or after is None else after - before
        if not row["error"] <= LIMITS["int8"]:
            row["note"] = "too far from fp32: not timed"
        elif first_s > limit_s and runs:
            row["pictures_per_s"] = args.pictures / first_s
            row["x_fp32"] = limit_s / TOO_SLOW / first_s
            row["note"] = "too slow for more than one run"
        else:
            runs[engine.name] = run

    times = take_turns(runs, args.rounds)
    first = times[chosen[0].name].seconds
    for name, row in rows.items():
        if name in times:
            ratios = [fp32_s / s for fp32_s, s in zip(first, times[name].seconds, strict=True)]
            row |= {"pictures_per_s": args.pictures / times[name].median, "x_fp32": statistics.median(ratios)}
        note = row.pop("note", "")
        report.add(times.get(name), **row, note=note)


def timed(work: Callable[[], _T]) -> tuple[_T, float]:
    begin = time.perf_counter()
    done = work()
    return done, time.perf_counter() - begin


def resident_mb() -> float | None:
    """Memory of this process that is in RAM now, what was freed given back; None on systems that do not say."""
    gc.collect()
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def installed_mb(packages: tuple[str, ...]) -> float:
    """What the packages add on disk to an installation of bt."""
    ours = requirements("bridgetower-cli")
    added = {name for package in packages for name in requirements(package)} - ours
    files = [file.locate() for name in added for file in metadata.files(name) or []]
    return sum(os.stat(file).st_size for file in files if os.path.exists(file)) / 1e6


def requirements(name: str) -> set[str]:
    """A distribution and all that it requires, as far as they are installed; optional extras left out."""
    found: set[str] = set()
    left = [name]
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        left += [re.split(r"[^\w.-]", one, maxsplit=1)[0] for one in required if "extra ==" not in one]
    return found


def parser() -> argparse.ArgumentParser:
    options = command_line(__doc__, sizes=["base"], rounds=5)
    options.add_argument("--pictures", type=int, default=PICTURES, help="in a batch (%(default)s)")
    options.add_argument("--engine", nargs="+", metavar="NAME", help="names, or how they begin; fp32 is always there")
    return options


def main() -> None:
    args = parser().parse_args()
    reference, *others = engines()
    if args.engine is not None:
        others = [engine for engine in others if engine.name.startswith(tuple(args.engine))]
    if CALIBRATION % args.pictures:
        raise SystemExit(f"--pictures is a divisor of {CALIBRATION}")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it reports to its makers unless told not to
    with Report(Path(__file__).stem, args) as report, tempfile.TemporaryDirectory() as scratch:
        for size in args.size:
            measure(report, [reference, *others], size, args, Path(scratch))


if __name__ == "__main__":
    main()
