"""One drawn set in five forms of captions: the same table from each; what is wrong in one is named with its place."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bridgetower_cli.parser import app
from examples.scenes.draw import distinct_scenes, draw_set

Pairs = list[tuple[str, list[str]]]  # a picture and its captions


def json_lines(pairs: Pairs) -> str:
    return "".join(json.dumps({"image": image, "captions": captions}) + "\n" for image, captions in pairs)


def table(pairs: Pairs, columns: tuple[str, str], file: Path, delimiter: str) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        rows = csv.writer(opened, delimiter=delimiter)
        rows.writerow(columns)
        rows.writerows([image, caption] for image, captions in pairs for caption in captions)


def coco(pairs: Pairs) -> dict[str, Any]:
    annotations = [(number, caption) for number, (_, captions) in enumerate(pairs) for caption in captions]
    return {
        "images": [{"id": number, "file_name": image} for number, (image, _) in enumerate(pairs)],
        "annotations": [{"id": i, "image_id": number, "caption": text} for i, (number, text) in enumerate(annotations)],
    }


def karpathy(pairs: Pairs) -> dict[str, Any]:
    images = [
        {"filename": image, "split": "train", "sentences": [{"raw": caption} for caption in captions]}
        for image, captions in pairs
    ]
    return {"dataset": "drawn", "images": images}


def document(form: Callable[[Pairs], dict[str, Any]]) -> Callable[[Pairs, Path], object]:
    return lambda pairs, file: file.write_text(json.dumps(form(pairs)))


FORMS: dict[str, Callable[[Pairs, Path], object]] = {
    "jsonl": lambda pairs, file: file.write_text(json_lines(pairs)),
    "csv": lambda pairs, file: table(pairs, ("filepath", "title"), file, ","),
    "tsv": lambda pairs, file: table(pairs, ("image", "caption"), file, "\t"),
    "coco": document(coco),
    "karpathy": document(karpathy),
}

# The fault in the second picture of each form, and the error that names it.
WRONG: dict[str, tuple[Callable[[str], str], str]] = {
    "jsonl": (lambda text: _line(text, 2, '{"image": "a.jpg", "captions": []}'), 'line 2: "captions" is not a list of'),
    "csv": (lambda text: _line(text, 4, "a.jpg"), "line 4: 1 cells, where the first line names 2"),
    "tsv": (lambda text: _line(text, 4, "a.jpg\t "), 'line 4: "caption" holds something that is no text'),
    "coco": (lambda text: text.replace('"image_id": 1', '"image_id": 99', 1), 'annotations[2]: "image_id" 99 is the'),
    "karpathy": (lambda text: text.replace('"raw": ', '"text": ', 4).replace('"text": ', '"raw": ', 2), "images[1]: "),
}


def _line(text: str, number: int, other: str) -> str:
    lines = text.splitlines()
    lines[number - 1] = other
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes with two captions each, in each form: a file of its name."""
    folder = tmp_path_factory.mktemp("drawn")
    rng = random.Random(4)
    draw_set(folder, distinct_scenes(8, rng), rng)
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    pairs = [(row["image"], [row["captions"][0], f'the "picture", with {row["captions"][0]}']) for row in rows]
    for form, write in FORMS.items():
        write(pairs, folder / form)
    return folder


def run(*arguments: object) -> Result:
    """`bt` in this process, with the demo model itself."""
    return CliRunner().invoke(app, list(map(str, arguments)), prog_name="bt")


def test_each_form_gives_the_same_table(drawn: Path) -> None:
    done = {form: run("eval", drawn / form, "--model", "demo", "--depth", 3, "--device", "cpu") for form in FORMS}
    assert {form: one.exit_code for form, one in done.items()} == dict.fromkeys(FORMS, 0)
    assert len({one.stdout for one in done.values()}) == 1
    header, recall, rerank = done["jsonl"].stdout.splitlines()
    assert header.split()[:3] == ["method", "depth", "IR@1"] and rerank.split()[:2] == ["rerank", "3"]
    assert float(recall.split()[2]) >= 75  # 12.5 is chance
    assert all("8 pictures, 16 texts; " in one.stderr for one in done.values())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("command", ["eval FILE --model demo", "train FILE --init demo --out OUT --dry-run"])
def test_a_wrong_file_is_named_with_its_place(drawn: Path, tmp_path: Path, form: str, command: str) -> None:
    spoil, complaint = WRONG[form]
    places = {"FILE": tmp_path / f"wrong.{form}", "OUT": tmp_path / "out"}
    places["FILE"].write_text(spoil((drawn / form).read_text()))
    done = run(*(places.get(word, word) for word in command.split()), "--images", drawn)
    assert done.exit_code == 6, done.stderr
    assert done.stdout == "" and done.stderr.startswith(f"error: {places['FILE']}, {complaint}")
    assert len(done.stderr.splitlines()) == 1 and not places["OUT"].exists()


def test_each_form_is_trained_on_alike(drawn: Path, tmp_path: Path) -> None:
    done = [
        run("train", drawn / form, "--init", "demo", "--out", tmp_path / form, "--batch", 4, "--dry-run", "--json")
        for form in FORMS
    ]
    assert [one.exit_code for one in done] == [0] * len(FORMS), done[0].stderr
    assert len({one.stdout for one in done}) == 1
    assert '"training": {"pictures": 7, "pairs": 14}, "validation": {"pictures": 1, "pairs": 2}' in done[0].stdout
