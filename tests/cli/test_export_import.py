"""`bt export` and `bt import`, and what is said of foreign vectors; tests/cli/test_installed.py moves a real index."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from bridgetower.records import Head
from tests.cli.conftest import Bt, Models
from tests.fakes import COLOURS, paint


@pytest.fixture
def foreign(bt: Bt, photos: Path, tmp_path: Path) -> Path:
    """The painted pictures with vectors of another space: one axis each, in the order of COLOURS."""
    np.save("x.npy", 3 * np.eye(len(COLOURS)))
    Path("x.jsonl").write_text("".join(json.dumps(f"photos/{colour}.png") + "\n" for colour in COLOURS))
    np.save("q.npy", np.array([0.1, 1, 0.2, 0]))  # green, then blue
    done = bt("import", "--vectors", "x.npy", "--paths", "x.jsonl", "--name", "clip")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "imported 4, known 0, skipped 0: 4 files\n")
    return tmp_path / "index"


def test_an_index_goes_to_another_place_and_is_brought_up_to_date_there(
    bt: Bt, library: Path, tmp_path: Path, models: Models
) -> None:
    (library / "bad.jpg").write_bytes(b"no picture")
    bt("index", library)
    done = bt("export", "export")
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'export'}\n")
    assert done.stderr.startswith("exported 4 pictures (0 without a file), 4 files, 1 skipped: ")
    expected = bt("search", "red", "--json").stdout.replace(str(library), str(tmp_path / "elsewhere"))

    os.rename(library, tmp_path / "elsewhere")
    for picture in (tmp_path / "elsewhere").iterdir():
        os.utime(picture)
    arguments = ("--index", "other")
    done = bt("import", "export", "--map", f"{library}=elsewhere", "--map", "/never=/x", *arguments)
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == (
        "note: /x, which --map names, is not there now: its pictures are shown once it is\n"
        "note: no path begins with /never, which --map names\n"
        "imported 4, known 0: 4 files\n"
    )
    assert bt("search", "red", "--json", *arguments).stdout == expected
    models.loaded.clear()
    done = bt("index", "elsewhere", *arguments)
    assert "indexed 0, reused 4, unchanged 0, removed 0, skipped 1" in done.stderr
    assert models.loaded == []
    assert (
        bt("import", "export", "--map", f"{library}=elsewhere", *arguments).stderr == "imported 0, known 4: 4 files\n"
    )
    assert "unchanged 4" in bt("index", "elsewhere", *arguments).stderr


def test_what_was_dropped_comes_back_with_an_export_from_before(bt: Bt, library: Path) -> None:
    bt("export", "export")
    (library / "red.png").unlink()
    bt("forget", library / "blue.png")
    assert "reused 1, unchanged 2, removed 1" in bt("index", library).stderr
    assert bt("import", "export").stderr == "imported 0, known 4: 4 files\n"
    assert "removed 1" in bt("index", library).stderr


def test_where_pictures_are_to_be_must_be_there_for_foreign_vectors(bt: Bt, foreign: Path) -> None:
    done = bt("import", "--vectors", "x.npy", "--paths", "x.jsonl", "--name", "clip", "--map", "/a=nowhere")
    assert "nowhere, which --map names, is not there now: import its pictures again once it is\n" in done.stderr


def test_what_does_not_go_together_is_wrong_usage(bt: Bt, tmp_path: Path) -> None:
    for arguments in (
        [],
        ["export", "--vectors", "x.npy"],
        ["export", "--paths", "x.jsonl"],
        ["export", "--name", "clip"],
        ["--vectors", "x.npy"],
        ["--vectors", "x.npy", "--paths", "x.jsonl"],
        ["--vectors", "x.npy", "--name", "clip"],
        ["export", "--map", "/a"],
        ["export", "--map", "=/a"],
        ["export", "--map", "/a="],
    ):
        done = bt("import", *arguments)
        assert (done.exit_code, done.stdout) == (2, ""), arguments
        assert done.stderr.count("\n") == 1


def test_errors_are_one_line_with_a_code(bt: Bt, library: Path, tmp_path: Path) -> None:
    for code, arguments in (
        (6, ["import", "nowhere"]),
        (6, ["import", "--vectors", "no.npy", "--paths", "x", "--name", "clip"]),
        (2, ["export", library]),
        (5, ["export", "new", "--index", "nowhere"]),
        (74, ["export", library / "red.png" / "new"]),
    ):
        done = bt(*arguments)
        assert (done.exit_code, done.stdout) == (code, ""), done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_an_interrupted_import_says_that_it_goes_on(bt: Bt, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bridgetower.transfer.import_index.import_folder", stop)
    done = bt("import", "export")
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == "interrupted: everything committed is kept, the same command goes on from there\n"


def test_a_vector_recalls_from_foreign_ones_and_the_model_is_the_judge(bt: Bt, foreign: Path, models: Models) -> None:
    models.resolved.clear()
    done = bt("search", "--query-vector", "q.npy", "--paths", "--top", 2)
    assert [Path(line).stem for line in done.stdout.splitlines()] == ["green", "blue"]
    assert models.resolved == []  # there was nothing for it to do
    models.heads = frozenset({Head.ITM})
    done = bt("search", "blue", "--query-vector", "q.npy", "--json", "--depth", 2)
    hits = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(hit["path"]).stem for hit in hits] == ["blue", "green", "red", "white"]
    assert [hit["verified"] for hit in hits] == [True, True, False, False]
    assert hits[1]["similarity"] == pytest.approx(1 / np.sqrt(1.05), abs=1e-3)
    assert models.resolved == ["fake"]  # BT_MODEL
    bt("search", "blue", "--query-vector", "q.npy", "--model", "other")
    assert models.resolved[-1] == "other"


def test_a_vector_from_stdin(bt: Bt, foreign: Path) -> None:
    done = bt("search", "--query-vector", "-", "--paths", "--top", 1, input=Path("q.npy").read_bytes())
    assert Path(done.stdout.strip()).stem == "green"
    done = bt("search", "--query-vector", "-", input=b"0.1 0.2")
    assert (done.exit_code, done.stderr.count("\n")) == (6, 1)
    assert "is no npy file" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "red"],
        ["search", "red", "--model", "other"],
        ["search", "--image", "photos/red.png"],
        ["fill", "a <mask>"],
        ["index", "photos"],
        ["index", "photos", "--model", "other"],
    ],
    ids=" ".join,
)
def test_what_foreign_vectors_cannot_do_says_what_can_be_done(
    arguments: list[str], bt: Bt, foreign: Path, models: Models
) -> None:
    models.resolved.clear()
    done = bt(*arguments)
    assert (done.exit_code, done.stdout, models.resolved) == (5, "", [])
    assert done.stderr.startswith(f"error: {foreign}: its vectors are foreign (clip)") and done.stderr.count("\n") == 1
    for way_out in ("--query-vector FILE", "bt import --vectors FILE", "bt index --index NEW"):
        assert way_out in done.stderr


def test_status_says_what_the_vectors_are(bt: Bt, foreign: Path) -> None:
    assert "clip (foreign vectors of length 4)" in bt("status").stdout
    assert json.loads(bt("status", "--json").stdout)["precision_family"] == "foreign"


def test_pictures_that_are_not_there_are_named(bt: Bt, foreign: Path, photos: Path) -> None:
    (photos / "red.png").unlink()
    arguments = ("import", "--vectors", "x.npy", "--paths", "x.jsonl", "--name", "clip", "--queries", "x.npy")
    done = bt(*arguments, "--index", "other")
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.splitlines() == [
        "skipped photos/red.png: no such file",
        "took 4 vectors of texts, by which recall is measured",
        "imported 3, known 0, skipped 1: 3 files",
    ]


def test_other_vectors_for_known_pictures_are_told(bt: Bt, foreign: Path) -> None:
    np.save("y.npy", np.roll(np.eye(len(COLOURS)), 1, axis=0))
    done = bt("import", "--vectors", "y.npy", "--paths", "x.jsonl", "--name", "clip")
    assert done.exit_code == 0
    assert done.stderr.startswith("note: 4 pictures came with quite another vector than the index has, which it keeps")


def test_a_vector_searches_an_ordinary_index_too(bt: Bt, library: Path, models: Models) -> None:
    np.save("q.npy", np.array([[0.0, 1.0, 0.1]], np.float16))
    done = bt("search", "--query-vector", "q.npy", "--paths", "--top", 1)
    assert Path(done.stdout.strip()).stem == "green"
    models.resolved.clear()
    assert bt("search", "red", "--query-vector", "q.npy", "--paths", "--top", 1).exit_code == 0
    assert bt("search", "red", "--query-vector", "q.npy", "--model", "other").exit_code == 0
    assert models.resolved == ["fake", "other"]


def test_a_vector_that_does_not_fit_is_an_error(bt: Bt, library: Path) -> None:
    np.save("q.npy", np.ones(4))
    done = bt("search", "red", "--query-vector", "q.npy")
    assert (done.exit_code, done.stdout) == (6, "")
    assert done.stderr.startswith("error: q.npy: a vector of length 4, those of the index have 3")
    assert bt("search", "--query-vector", "no.npy").exit_code == 6
    assert bt("search", "--query-vector", "q.npy", "--image", paint(Path("a.png"), "red")).exit_code == 2
    assert bt("search", "--query-vector", "q.npy", "--min-match", "0.5").exit_code == 2
