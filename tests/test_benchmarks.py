"""The benchmarks run, time nothing that is wrong, and count right. What they measure is not asserted here."""

import argparse
import dataclasses
import json
import random
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import audit, flops, machine, memory, negatives, processes
from benchmarks.checkpoints import NAMES, SIZES, checkpoint
from benchmarks.embedding import LIMITS, error
from benchmarks.harness import Array, Contender, Report, Times, as_table, compare, take_turns
from bridgetower import Audited
from bridgetower.checkpoints.find import resolve
from bridgetower.network.bridgetower import BridgeTower
from examples.scenes.draw import distinct_scenes
from examples.scenes.vocabulary import ANIMALS, BACKGROUNDS, COLOURS, NUMBERS, OBJECTS, PLACES, SYNONYMS

ROOT = Path(__file__).parents[1]
IN_PROCESS = ("embedding", "reranking", "text", "decoding", "many_texts")
IN_MANY = (
    "indexing",
    "formats",
    "starting",
    "unchanged",
    "busy",
    "kept",
    "serving",
    "memory",
    "training",
)  # processes, each of which loads torch
SCRIPTS = (*IN_PROCESS, *IN_MANY)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


def run(script: str, *options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "benchmarks" / f"{script}.py"
    monkeypatch.setattr(sys, "argv", [str(path), *options])
    runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("script", [*IN_PROCESS, *(pytest.param(name, marks=pytest.mark.slow) for name in IN_MANY)])
def test_each_benchmark_gives_a_table_and_json_lines(
    script: str, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "lines.jsonl"
    options = ["--size", "tiny", "--rounds", "1", "--work", str(work), "--json", str(lines)]
    options += ["--of", "starting"] if script == "memory" else []  # of all of them would take a minute
    options += ["--before", str(ROOT)] if script in ("busy", "kept") else []
    options += ["--precision", "fp32"] if script == "kept" else []
    options += ["--texts", "20"] if script == "many_texts" else []
    run(script, *options, monkeypatch=monkeypatch)
    rows = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    heading, _, header, rule, *body = capsys.readouterr().out.strip().splitlines()
    assert heading.startswith(f"{script}: processor ")
    assert re.fullmatch(r"\|(-+[:-]\|)+", rule)
    assert len(body) == len(rows) >= 2
    assert {len(line) for line in (header, rule, *body)} == {len(header)}
    for row, line in zip(rows, body, strict=True):
        assert row["benchmark"] == script and row["size"] == "tiny" and row["machine"]["cores"] >= 1
        assert row["contender"] in line
        assert row["peak_mb"] > 1 if script == "memory" else row["seconds"] == row["all_seconds"][0] > 0


@pytest.mark.slow
def test_cluster_measures_both_engines(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", exc_type=ImportError)
    lines = tmp_path / "lines.jsonl"
    options = ["--size", "tiny", "--rounds", "1", "--photos", "4", "--work", str(work), "--json", str(lines)]
    run("cluster", *options, monkeypatch=monkeypatch)
    rows = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert [row["contender"] for row in rows] == 2 * ["--engine local", "--engine ray"]
    assert [row["pictures"] for row in rows] == [1, 1, 4, 4]
    assert rows[0]["x_local"] == 1 and all(row["seconds"] > 0 for row in rows)
    assert capsys.readouterr().out.startswith("cluster: processor ")


def test_duplicates_counts_right_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "lines.jsonl"
    run("duplicates", "--scenes", "30", "--vectors", "500", "--json", str(lines), monkeypatch=monkeypatch)
    rows = {row.get("of", "vectors"): row for row in map(json.loads, lines.read_text("utf-8").splitlines())}
    found, vectors = rows["bt duplicates"], rows["vectors"]
    assert found["pairs"] > 10 and 0.8 < found["recall"] <= 1 and 0.9 < found["precision"] <= 1
    assert found["pictures"] > 30 and vectors["vectors"] == 500 and vectors["pairs"] >= 24
    assert "| bt duplicates " in capsys.readouterr().out


def test_make_bench_runs_all_of_them() -> None:
    listed = re.search(r"^BENCHMARKS := (.*)$", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    assert listed is not None and sorted(listed[1].split()) == sorted(SCRIPTS)
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text("utf-8")}
    databases = {"stores", "store_answers"}
    assert scripts == {
        *SCRIPTS,
        *databases,
        "cluster",
        "plain_indexing",
        "warm",
        "kills",
        "damages",
        "scale",
        "drift",
        "audit",
        "negatives",
        "duplicates",
    }
    # one that needs Ray, two contenders, two trials, what takes an hour or another build, and three measures of quality


def test_memory_starts_every_contender_alone(work: Path, tmp_path: Path) -> None:
    for benchmark in memory.NETWORKS:
        commands = memory.commands(benchmark, "tiny", work, tmp_path)
        assert {name.partition(",")[0] for name in commands} == {"bt", "transformers"}
        assert all(command[-2:] == ["--only", name] for name, command in commands.items())
    command = memory.commands("embedding", "tiny", work, tmp_path)["bt, fp32"]
    program = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__');"
    program += "print('transformers' in sys.modules)"
    assert processes.run([sys.executable, "-c", program, *command[1:]]) == "False\n"


# A wrong result is not timed


def contender(side: str, result: Array, precision: str = "fp32") -> Contender:
    return Contender(side, precision, lambda: lambda: result, items=len(result), flop=1000)


def compared(contenders: list[Contender], **changes: Any) -> list[dict[str, Any]]:
    args = argparse.Namespace(
        **{"rounds": 1, "json": None, "only": None, "precision": None, "device": "cpu", **changes}
    )
    report = Report("test", args)
    compare(report, contenders, args, size="tiny", unit="pictures", error=error, limits=LIMITS)
    return report.rows


RIGHT = np.eye(3, 8, dtype=np.float32)


def test_contenders_that_agree_are_timed() -> None:
    rows = compared([contender("first", RIGHT), contender("second", RIGHT, "bf16")], precision=["bf16"])
    names = [row["contender"] for row in rows]
    assert names == ["first, fp32", "second, bf16", "ceiling, fp32", "ceiling, bf16"]
    assert rows[0]["x_documented"] == 1


def test_what_the_processor_is_not_made_for_is_compared_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "precisions", lambda device: ("fp32", "int8"))
    contenders = [contender("first", RIGHT), contender("second", RIGHT, "bf16"), contender("third", RIGHT, "int8")]
    usual = [row["contender"] for row in compared(contenders)]
    assert "second, bf16" not in usual and "third, int8" in usual
    asked = [row["contender"] for row in compared(contenders, precision=["bf16"])]
    assert "second, bf16" in asked and "third, int8" not in asked


def test_the_precisions_of_a_machine() -> None:
    assert machine.precisions("cuda") == ("fp32", "bf16")
    assert machine.precisions("cpu")[0] == "fp32"


@pytest.mark.parametrize(
    "wrong", [RIGHT[::-1], RIGHT * np.float32("nan"), RIGHT + np.float32(0.1)], ids=["order", "nan", "value"]
)
def test_a_wrong_result_is_refused(wrong: Array) -> None:
    wrong = wrong / np.linalg.norm(wrong, axis=1, keepdims=True)
    with pytest.raises(SystemExit, match="second, fp32 is wrong"):
        compared([contender("first", RIGHT), contender("second", wrong)])


def test_results_that_are_missing_are_refused() -> None:
    too_few = dataclasses.replace(contender("second", RIGHT), items=4)
    with pytest.raises(SystemExit, match="second, fp32 is wrong: 3 results"):
        compared([contender("first", RIGHT), too_few])


def test_items_that_are_all_alike_are_refused() -> None:
    with pytest.raises(SystemExit, match="too alike"):
        compared([contender("first", np.ones((3, 1), np.float32))])


def test_only_runs_one_contender_and_times_nothing() -> None:
    assert compared([contender("first", RIGHT), contender("second", RIGHT)], only="second, fp32") == []
    with pytest.raises(SystemExit, match=r"third is none of: first, fp32; second, fp32"):
        compared([contender("first", RIGHT), contender("second", RIGHT)], only="third")


def test_a_command_that_fails_is_not_timed() -> None:
    with pytest.raises(SystemExit, match=r"(?s)failed with 3:.*what went wrong"):
        processes.run([sys.executable, "-c", "import sys; sys.stderr.write('what went wrong'); sys.exit(3)"])
    with pytest.raises(SystemExit, match="failed with 3"):
        processes.peak([sys.executable, "-c", "raise SystemExit(3)"])


# Clock, table, memory, arithmetic


def test_contenders_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = 0.0, []

    def taking(name: str, *seconds: float) -> Any:
        left = list(seconds)

        def run() -> None:
            nonlocal now
            now += left.pop(0)
            order.append(name)

        return run

    monkeypatch.setattr("benchmarks.harness.time.perf_counter", lambda: now)
    times = take_turns({"a": taking("a", 1, 9, 2), "b": taking("b", 5, 5, 6)}, rounds=3)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert times == {"a": Times((1, 9, 2)), "b": Times((5, 5, 6))}
    assert (times["a"].median, times["a"].spread) == (2, 4)


def test_table() -> None:
    rows = [{"who": "a", "s": 0.12345, "n": 3}, {"who": "bcd", "s": 1234.5, "peak_mb": None}]
    assert as_table(rows).splitlines() == [
        "| who |     s | n | peak mb |",
        "|-----|------:|--:|--------:|",
        "| a   | 0.123 | 3 |         |",
        "| bcd |  1234 |   |         |",
    ]


def test_peak_memory_is_that_of_the_command_alone() -> None:
    little = processes.peak([sys.executable, "-c", "pass"])
    much = processes.peak([sys.executable, "-c", "bytearray(200_000_000).count(1)"])
    assert little < 50_000_000  # this process, with torch in it, is many times that
    assert much - little == pytest.approx(200_000_000, rel=0.05)


def counted_by_torch(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("size", ["tiny", "demo"])
def test_arithmetic_is_what_torch_counts(size: str, work: Path) -> None:
    config = resolve(str(checkpoint(size, work))).config
    model = BridgeTower(config).initialise(torch.Generator()).eval()
    pixels = torch.zeros(1, 3, config.vision.image_size, config.vision.image_size)
    ids, mask = torch.full((1, 12), 9), torch.ones(1, 12, dtype=torch.bool)
    # The kernels for attention alone are not all known to the counter; its plain products are. While gradients are
    # recorded, no rows are filled up.
    with sdpa_kernel(SDPBackend.MATH):
        text, image = model.encode_text(ids, mask), model.encode_image(pixels)
        counted = {
            "image": counted_by_torch(lambda: model.encode_image(pixels)),
            "text": counted_by_torch(lambda: model.text_tower(ids, mask, 1)),
            "pair": counted_by_torch(lambda: model.fuse(text, image)),
        }
    # What the first layer of a pair does with each side alone is done when that side is encoded.
    words, visual = (flops.self_attention(n, config.hidden_size) for n in (12, config.vision.num_tokens))
    assert counted["image"] == pytest.approx(flops.image(config) + flops.projections(config) + visual, rel=0.01)
    assert counted["text"] == flops.text(config, 12)
    assert counted["pair"] == pytest.approx(flops.pair(config, 12) - words - visual, rel=0.01)


@pytest.mark.parametrize(("size", "image", "pair"), [("base", 59.5e9, 40.3e9), ("large", 286.7e9, 96.6e9)])
def test_arithmetic_of_the_true_sizes(size: str, image: float, pair: float) -> None:
    """As the documents state it."""
    assert flops.image(SIZES[size]) == pytest.approx(image, rel=0.002)
    assert flops.pair(SIZES[size], tokens=12) == pytest.approx(pair, rel=0.002)


def test_checkpoints_have_all_heads_and_their_size(work: Path) -> None:
    folder = checkpoint("tiny", work)
    found = resolve(str(folder))
    assert found.config == SIZES["tiny"]
    assert len(found.heads) == 3
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert checkpoint("tiny", work) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written  # drawn once
    assert set(NAMES) == {*SIZES, "demo"}


def test_a_checkpoint_of_another_shape_is_drawn_again(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint("tiny", work)
    other = dataclasses.replace(SIZES["tiny"], contrastive_hidden_size=16)
    monkeypatch.setitem(SIZES, "tiny", other)
    assert resolve(str(checkpoint("tiny", work))).config == other


def test_products_in_every_precision() -> None:
    for precision in {"fp32", "bf16", *machine.precisions("cpu")}:
        run = machine.product(precision, "cpu", 8)
        assert run is not None
        run()
    assert machine.product("int8", "cuda", 8) is None


@pytest.mark.slow
def test_scale_measures_the_index_and_its_peers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "lines.jsonl"
    run("scale", "--images", "1500", "--work", str(tmp_path), "--json", str(lines), monkeypatch=monkeypatch)
    ours, flat, hnsw = (json.loads(line) for line in lines.read_text("utf-8").splitlines())
    assert [ours["recall"], flat["recall"]] == [1, 1] and hnsw["recall"] > 0.9
    assert 0 < ours["p50_ms"] <= ours["p99_ms"] and ours["insert_s"] > 0 and ours["publish_s"] > 0
    assert ours["memory_mb"] > 10 and 2 < ours["file_kb_a_vector"] < 2.2
    assert "faiss HNSW" in capsys.readouterr().out
    assert not (tmp_path / "index-1500").exists()


@pytest.mark.slow
def test_drift_measures_both_builds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "lines.jsonl"
    sizes = ["--images", "1500", "--added", "200", "--kinds", "cloud"]
    run("drift", "--before", str(ROOT), *sizes, "--json", str(lines), monkeypatch=monkeypatch)
    rows = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert [row["images"] for row in rows] == [1500, 1500, 1700, 1700, 1701, 1701, 1702, 1702]
    assert [row["contender"] for row in rows] == 4 * ["before", "now"]
    assert all(row["recall"] == 1 and row["lists"] is None and row["publish_s"] > 0 for row in rows)
    assert "1702" in capsys.readouterr().out


def test_one_caption_in_ten_is_false_by_one_word_of_its_kind() -> None:
    rng = random.Random(1)
    scenes = distinct_scenes(600, rng)
    pairs = list(audit.pairs(scenes, rng))
    false = [(scene, pair) for scene, pair in zip(scenes, pairs, strict=True) if pair.kind]
    assert len(pairs) == 600 and 55 <= len(false) <= 60
    assert {kind: 9 <= sum(pair.kind == kind for _, pair in false) <= 10 for kind in audit.KINDS} == dict.fromkeys(
        audit.KINDS, True
    )
    values = {
        "noun": {*ANIMALS, *OBJECTS}, "number": {*NUMBERS}, "colour": {*COLOURS}, "relation": {*audit.OPPOSITE},
        "place": {*PLACES, *SYNONYMS.values()}, "background": set(re.findall(r"\w+", str(BACKGROUNDS.values()))),
    }  # fmt: skip
    for scene, pair in false:
        word, right = re.match(r"\w+", pair.caption[pair.at :]), re.match(r"\w+", pair.right[pair.at :])
        assert word is not None and right is not None and word[0] != right[0]
        assert pair.caption[pair.at + len(word[0]) :] == pair.right[pair.at + len(right[0]) :]
        if not (pair.kind == "noun" and scene.count > 1):  # a plural
            assert word[0].lower() in values[pair.kind]


def test_equal_matches_count_half() -> None:
    assert audit.auc(np.array([0.9, 0.5]), np.array([0.5, 0.1])) == (2 + 1 + 0.5) / 4


def test_audit_counts_what_is_flagged_named_and_mended() -> None:
    pairs = [audit.Pair("two cats", "number", 0, "one cats"), audit.Pair("a red cat", "colour", 2, "a blue cat")]
    rows = [Audited(Path("a"), "two cats", 0.4, None, "two", 0, "one", 0.9)]
    rows += [Audited(Path("b"), "a red cat", 0.6, None, "cat", 6, "dog", 0.9)]
    found = audit.measured(list(zip(pairs, rows, strict=True)), np.array([0.5]))
    assert found == {"captions": 2, "auc": 0.5, "flagged_%": 50.0, "named_%": 50.0, "mended_%": 50.0}


def test_audit_gives_a_row_a_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "lines.jsonl"
    run("audit", "--pairs", "21", "--precision", "fp32", "--json", str(lines), monkeypatch=monkeypatch)
    rows = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert [row["kind"] for row in rows] == ["true", *audit.KINDS, "all false"]
    assert rows[0]["captions"] + rows[-1]["captions"] == 21 and rows[-1]["auc"] > 0.5
    assert capsys.readouterr().out.startswith("audit: processor ")


def test_negatives_draws_pictures_with_and_without_what_is_refused() -> None:
    queries, scenes = negatives.drawn(6, random.Random(1))
    assert [query.kind for query in queries] == [*negatives.KINDS] * 2
    assert len(scenes) == 6 * (negatives.WITH + negatives.WITHOUT) and all(scene.held_out for scene in scenes)
    for query in queries:
        shown = [scene for scene in scenes if query.wanted.true_of(scene)]
        right = [scene for scene in scenes if query.is_right(scene)]
        assert len(right) >= negatives.WITHOUT and len(shown) - len(right) >= negatives.WITH
        assert not any(query.refused.true_of(scene) for scene in right)
    found = [(query, [scene for scene in scenes if query.is_right(scene)][:4]) for query in queries]
    assert negatives.precisions(found) == {
        **dict.fromkeys([*negatives.KINDS, "all", "show the one"], 1.0),
        "show the other": 0.0,
        "a query": 4.0,
    }


@pytest.mark.slow
def test_negatives_compares_all_contenders(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = tmp_path / "lines.jsonl"
    run("negatives", "--queries", "3", "--json", str(lines), monkeypatch=monkeypatch)
    rows = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert [row["contender"] for row in rows] == [
        "plain",
        "subtracted",
        "subtracted, verified",
        "not",
        "not, min-match",
    ] * 2
    assert rows[3]["show the other"] < rows[0]["show the other"]
    assert "negatives: processor" in capsys.readouterr().out
