"""The small programs in `examples`, each run as a person runs it, and the notebook."""

import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from bridgetower import Library
from examples.scenes.draw import distinct_scenes, draw_set

ROOT = Path(__file__).parents[1]
GALLERY = ROOT / "examples" / "gallery"
README = (ROOT / "README.md").read_text("utf-8")
SHEET = ROOT / "docs" / "images" / "contact-sheet.webp"
CATS, DOG = "two-cats-on-a-couch-in-the-desert.jpg", "a-dog-on-a-couch-in-the-rain.jpg"


def run(program: str, *arguments: object, status: int = 0) -> str:
    """Return the output of the program."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def index(folder: Path) -> Path:
    """An index of the pictures in a folder, below it."""
    with Library(folder / "index", "demo") as library:
        library.index([folder])
    return folder / "index"


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of few pictures."""
    folder = tmp_path_factory.mktemp("few")
    for name in (CATS, DOG, "two-cats-in-the-snow.jpg", "four-cups.jpg"):
        shutil.copy(GALLERY / name, folder)
    return index(folder)


def test_a_contact_sheet_has_the_best_picture_first(few: Path, tmp_path: Path) -> None:
    printed = run("contact_sheet.py", few, "two cats on a couch", tmp_path / "sheet.webp", "--top", 4)
    assert printed == f"4 pictures on {tmp_path / 'sheet.webp'}\n"
    with Image.open(tmp_path / "sheet.webp") as sheet, Image.open(GALLERY / CATS) as cats:
        assert sheet.size == (768, 576)
        first = sheet.crop((57, 12, 207, 252))  # 400 x 640 pixels, contained in 240 x 240
        cats.thumbnail((150, 240))
        difference = [
            abs(one - other) for one, other in zip(first.tobytes(), cats.convert("RGB").tobytes(), strict=True)
        ]
        assert sum(difference) / len(difference) < 6
        assert min(sheet.crop((12, 252, 252, 280)).convert("L").tobytes()) < 50  # letters


def test_the_sheet_in_the_readme_is_what_its_command_makes(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    [(text, top)] = re.findall(
        r'^ *\$ python examples/contact_sheet.py \S+ "(.*?)" \S+ --top (\d)', README, re.MULTILINE
    )
    with Library(tmp_path / "index", "demo", precision="fp32") as library:
        library.index([GALLERY])
    run("contact_sheet.py", tmp_path / "index", text, tmp_path / SHEET.name, "--top", top, "--precision", "fp32")
    if request.config.getoption("--rewrite"):
        shutil.copy(tmp_path / SHEET.name, SHEET)
        return
    with Image.open(tmp_path / SHEET.name) as made, Image.open(SHEET) as shown:
        assert made.size == shown.size
        difference = ImageChops.difference(made.convert("L"), shown.convert("L"))
    for row in range(0, made.height - 40, 282):
        pictures, lines = (
            difference.crop((0, row, made.width, row + 252)),
            difference.crop((0, row + 252, made.width, row + 282)),
        )
        assert ImageStat.Stat(pictures).mean[0] < 1
        assert ImageStat.Stat(lines).mean[0] < 0.3  # another digit makes 0.5
    assert SHEET.stat().st_size < 150_000


def test_a_sheet_that_cannot_be_written_is_known_before_the_search(tmp_path: Path) -> None:
    taken = tmp_path / "taken.webp"
    taken.write_bytes(b"a photograph")
    for sheet, reason in (
        (tmp_path / "sheet.xyz", "its name should end with one of .webp, .png, .jpg, .jpeg"),
        (tmp_path / "gone" / "sheet.webp", "its folder is not there; make it first"),
        (taken, "is there already; choose another name"),
    ):
        said = run("contact_sheet.py", tmp_path / "no index", "a cat", sheet, status=2)
        assert said == f"error: {sheet}: {reason}\n"
    assert taken.read_bytes() == b"a photograph"


@pytest.mark.slow
def test_new_words_are_taught_with_and_without_replay_and_measured(tmp_path: Path) -> None:
    """The script as it stands, with sets of a few pictures in the place of those that it would draw."""
    for number, (name, new, held_out) in enumerate(
        [("new-8", True, False), ("new-fresh", True, True), ("old", False, False), ("old-fresh", False, True)]
    ):
        rng = random.Random(number)
        draw_set(tmp_path / name, distinct_scenes(8, rng, held_out=held_out, new=new), rng)
    settings = {**os.environ, "PAIRS": "8", "OPTIONS": "--steps 2 --batch 4", "OMP_NUM_THREADS": "1"}
    settings["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{settings['PATH']}"

    def teach() -> str:
        done = subprocess.run(
            ["sh", ROOT / "examples" / "new_words.sh", tmp_path],
            capture_output=True,
            text=True,
            check=False,
            env=settings,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = teach()
    moments = ("before", "after, with replay", "after, without replay")
    measured = [f"{moment}, {what}" for moment in moments for what in ("new-fresh", "old-fresh")]
    assert [line for line in said.splitlines() if line.endswith("-fresh")] == measured
    assert said.count("recall") == said.count("rerank") == len(measured)
    for name, replays in (("replayed", True), ("forgetful", False)):
        run_of = json.loads((tmp_path / name / "run" / "settings.json").read_text("utf-8"))
        assert (run_of["settings"]["--replay-share"] is not None) is replays
    assert teach() == said  # nothing is drawn or taught twice


@pytest.mark.parametrize(
    ("program", "more", "code"),
    [
        ("contact_sheet.py", ["a cat", "new.webp"], 5),
        ("best_of_each_month.py", ["a cat"], 5),
        ("caption_check.py", [], 6),
    ],
)
def test_an_error_is_one_line_with_the_exit_code_of_bt(
    program: str, more: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(program, tmp_path / "nothing", *more, status=code)
    assert said.startswith("error: ") and "nothing" in said and said.count("\n") == 1


@pytest.mark.parametrize("program", ["contact_sheet.py", "best_of_each_month.py", "caption_check.py"])
def test_an_interrupt_ends_a_program_without_a_traceback(program: str, tmp_path: Path) -> None:
    interrupted = (
        "import runpy, sys, bridgetower\n"
        "def stop(*_, **__): raise KeyboardInterrupt\n"
        "bridgetower.Library = bridgetower.read_captions = stop\n"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    more = {"contact_sheet.py": ["a cat", str(tmp_path / "new.webp")], "best_of_each_month.py": ["a cat"]}.get(
        program, []
    )
    done = subprocess.run(
        [sys.executable, "-c", interrupted, ROOT / "examples" / program, tmp_path, *more],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_captions_are_checked_worst_first(tmp_path: Path) -> None:
    rows = [
        "image,caption,by",
        f"{CATS},two dogs on a couch,ada",
        f"{DOG},a dog on a couch,ada",
        f"{CATS},two cats in the desert,bob",
    ]
    for name in (CATS, DOG):
        shutil.copy(GALLERY / name, tmp_path)
    (tmp_path / "captions.csv").write_text("".join(row + "\r\n" for row in rows), "utf-8-sig")
    checked = list(csv.DictReader(StringIO(run("caption_check.py", tmp_path / "captions.csv", "--model", "demo"))))
    assert {(Path(row["image"]), row["place"], row["caption"]) for row in checked} == {
        (tmp_path / CATS, "line 2", "two dogs on a couch"),
        (tmp_path / DOG, "line 3", "a dog on a couch"),
        (tmp_path / CATS, "line 4", "two cats in the desert"),
    }
    assert checked[0]["caption"] == "two dogs on a couch" and float(checked[0]["match"]) < 0.1
    assert [float(row["match"]) for row in checked] == sorted(float(row["match"]) for row in checked)
    assert float(checked[-1]["match"]) > 0.9


def test_captions_of_pictures_that_are_gone_are_left_out_if_asked(tmp_path: Path) -> None:
    lines = "".join(f'{{"image": "{name}", "caption": "a dog on a couch"}}\n' for name in ("gone.jpg", DOG))
    (tmp_path / "captions.jsonl").write_text(lines, "utf-8")
    asked = "caption_check.py", tmp_path / "captions.jsonl", "--model", "demo", "--images", GALLERY
    said = run(*asked, status=6)
    assert "line 1" in said and "gone.jpg" in said and said.count("\n") == 1
    [row] = csv.DictReader(StringIO(run(*asked, "--skip-missing")))
    assert (row["image"], row["place"]) == (str(GALLERY / DOG), "line 2")


def test_the_best_of_each_month(tmp_path: Path) -> None:
    taken = {CATS: "2024:05:17", "four-cups.jpg": "2024:05:01", DOG: "2024:02:01", "two-cows.jpg": "2023:05:01"}
    for name, day in taken.items():
        with Image.open(GALLERY / name) as picture:
            exif = picture.getexif()
            exif.get_ifd(0x8769)[0x9003] = f"{day} 10:00:00"  # DateTimeOriginal
            picture.save(tmp_path / name, quality=95, exif=exif)
    asked = index(tmp_path), "two cats on a couch", 2024
    lines = run("best_of_each_month.py", *asked, "--min-match", 0).splitlines()
    best = [f"2024-02  0.000  {tmp_path / DOG}", f"2024-05  {lines[1].split()[1]}  {tmp_path / CATS}"]
    assert lines == best
    assert run("best_of_each_month.py", *asked, "--min-match", 0.2).splitlines() == best[1:]
    none = run("best_of_each_month.py", *asked[:2], 2023, status=1)
    assert none.startswith("no match in 2023: the best picture has 0.0") and none.count("\n") == 1
    assert run("best_of_each_month.py", *asked[:2], 2019, status=1) == (
        "no match in 2019: the index has no picture of that year\n"
    )
