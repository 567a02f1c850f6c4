"""One set of pictures and captions in each form; what is wrong in a form is named with its place."""

import json
import os
from collections.abc import Callable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, cast

import pytest

from bridgetower.errors import InputError, UsageError
from bridgetower.files.captions.captioned import Captioned
from bridgetower.files.captions.read import read_captions
from bridgetower.records import Skipped
from tests.fakes import paint

PAIRS = [("a.jpg", "a cat"), ("b.jpg", 'a "big" dog, asleep'), ("a.jpg", "a cat\nand a dog")]


def _coco() -> dict[str, Any]:
    return {
        "info": {"year": 2014},
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}, {"id": 3, "file_name": "c.jpg"}],
        "annotations": [
            {"image_id": {"a.jpg": 7, "b.jpg": 9}[image], "id": number, "caption": caption}
            for number, (image, caption) in enumerate(PAIRS)
        ],
    }


def _karpathy() -> dict[str, Any]:
    split = {"a.jpg": "train", "b.jpg": "test"}
    images = [
        {"filename": name, "split": split[name], "sentences": [{"raw": text} for image, text in PAIRS if image == name]}
        for name in split
    ]
    return {"dataset": "flickr8k", "images": images}


def _lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


FORMS = {
    "all captions": _lines(
        {"image": "a.jpg", "captions": [PAIRS[0][1], PAIRS[2][1]]},
        {"image": "b.jpg", "captions": [PAIRS[1][1]]},
    ),
    "one caption": _lines(*({"image": image, "caption": caption} for image, caption in PAIRS)),
    "Hugging Face": _lines(*({"file_name": image, "text": caption} for image, caption in PAIRS)),
    "csv": 'image,caption\na.jpg,a cat\nb.jpg,"a ""big"" dog, asleep"\n\na.jpg,"a cat\nand a dog"\n',
    "csv, blank lines first": '\n \r\nimage,text\na.jpg,a cat\nb.jpg,"a ""big"" dog, asleep"\n'
    'a.jpg,"a cat\nand a dog"\n',
    "csv, carriage returns": 'image,caption\ra.jpg,a cat\rb.jpg,"a ""big"" dog, asleep"\ra.jpg,"a cat\nand a dog"\r',
    "open_clip": 'filepath\ttitle\na.jpg\ta cat\nb.jpg\t"a ""big"" dog, asleep"\na.jpg\t"a cat\nand a dog"\n',
    "semicolons": 'Id;Caption ;IMAGE\r\n1;a cat;a.jpg\r\n2;"a ""big"" dog, asleep";b.jpg\r\n'
    '3;"a cat\nand a dog";a.jpg\r\n',
    "coco": json.dumps(_coco()),
    "coco, indented": json.dumps(_coco(), indent=1),
    "coco, a field a line": json.dumps(_coco()).replace('}, "images"', '},\n"images"'),
    "coco, pictures last": json.dumps(dict(reversed(_coco().items()))),
    "karpathy": json.dumps(_karpathy()),
    "karpathy, indented": json.dumps(_karpathy(), indent=2),
}  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "byte order mark"])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_pairs(pictures: Path, form: str, mark: bytes) -> None:
    (pictures / "captions").write_bytes(mark + FORMS[form].encode())
    assert read_captions(pictures / "captions") == [
        Captioned(pictures / "a.jpg", ("a cat", "a cat and a dog")),
        Captioned(pictures / "b.jpg", ('a "big" dog, asleep',)),
    ]


def test_a_document_longer_than_what_tells_the_forms_apart_is_read(pictures: Path) -> None:
    document = _coco()
    document["annotations"] *= 2000
    for indent in (None, 4):
        (pictures / "captions.json").write_text(json.dumps(document, indent=indent))
        assert [len(item.captions) for item in read_captions(pictures / "captions.json")] == [4000, 2000]


def test_a_picture_of_many_rows_is_looked_for_once(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[str] = []
    real = os.path.realpath

    def counted(path: str) -> str:
        looked_for.append(path)
        return real(path)

    monkeypatch.setattr(os.path, "realpath", counted)
    (pictures / "captions.csv").write_text("image,caption\n" + "a.jpg,a cat\n./a.jpg,a dog\n" * 50)
    [item] = read_captions(pictures / "captions.csv")
    assert len(item.captions) == 100 and len(looked_for) == 2
    assert item.places[:3] == ("line 2", "line 3", "line 4")


def test_pictures_may_lie_in_another_folder(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("annotations") / "captions.csv"
    file.write_text(FORMS["csv"])
    with pytest.raises(InputError, match=r"line 2: .*no such file, and 1 more; .*--images"):
        read_captions(file)
    assert [item.image for item in read_captions(file, images=pictures)] == [pictures / "a.jpg", pictures / "b.jpg"]


def test_a_split_of_karpathy_is_chosen(pictures: Path) -> None:
    file = pictures / "dataset.json"
    file.write_text(FORMS["karpathy"])
    assert [item.image.name for item in read_captions(file, split="test")] == ["b.jpg"]
    assert [item.image.name for item in read_captions(file, split=["test", "train"])] == ["a.jpg", "b.jpg"]
    with pytest.raises(InputError, match=r"no picture is of the split val; its splits are test, train$"):
        read_captions(file, split=["test", "val"])
    for wrong in ([], [""], [1]):
        with pytest.raises(UsageError, match="split names parts"):
            read_captions(file, split=wrong)  # type: ignore[arg-type]


def test_the_folder_that_karpathy_names_is_part_of_the_path(pictures: Path) -> None:
    (pictures / "val2014").mkdir()
    (pictures / "a.jpg").rename(pictures / "val2014" / "a.jpg")
    document = _karpathy()
    document["images"][0]["filepath"] = "val2014"
    (pictures / "dataset.json").write_text(json.dumps(document))
    assert read_captions(pictures / "dataset.json")[0].image == pictures / "val2014" / "a.jpg"


def test_a_picture_is_no_captions_file(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", "red")
    with pytest.raises(InputError, match=r"a\.png: no captions file: it is no text in UTF-8; "):
        read_captions(tmp_path / "a.png")


@pytest.mark.parametrize("form", ["csv", "coco", "one caption"])
def test_other_forms_have_no_split(pictures: Path, form: str) -> None:
    (pictures / "captions").write_text(FORMS[form])
    with pytest.raises(InputError, match=r"name none"):
        read_captions(pictures / "captions", split="test")


def test_a_missing_picture_is_named_with_its_place(pictures: Path) -> None:
    (pictures / "b.jpg").unlink()
    for form, place in (
        ("csv", "line 3"),
        ("coco", "annotations[1]"),
        ("karpathy", "images[1]"),
        ("one caption", "line 2"),
    ):
        (pictures / "captions").write_text(FORMS[form])
        missing: list[Skipped] = []
        read_captions(pictures / "captions", on_missing=missing.append)
        assert missing == [Skipped(pictures / "b.jpg", f"no such file, in {place} of captions")]


def _without(form: Callable[[], dict[str, Any]], *way: str | int) -> str:
    """The document of a form without one of its values."""
    document = form()
    del reduce(getitem, way[:-1], cast(Any, document))[way[-1]]
    return json.dumps(document)


def _with(form: Callable[[], dict[str, Any]], value: object, *way: str | int) -> str:
    """The document of a form with another value in one place."""
    document = form()
    reduce(getitem, way[:-1], cast(Any, document))[way[-1]] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("image,caption\na.jpg,red, green\n", "line 2: 3 cells, where the first line names 2: put a text with a comma"),
        ("image\tcaption\na.jpg\tred\tgreen\n", "line 2: 3 cells, where the first line names 2: put a text with a tab"),
        ("image,caption\na.jpg\n", "line 2: 1 cells, where the first line names 2; a row should have"),
        ('image,caption\na.jpg,"one\ntwo"\nb.jpg, \n', 'line 4: "caption" holds something that is no text'),
        ("image,caption\n,a cat\n", 'line 2: "image" is not a path'),
        ('image,caption\na.jpg,"a" cat\n', "line 2: "),
        ('filepath\ttitle\na.jpg\t"open', "line 2: "),
        ("picture,caption\na.jpg,a cat\n", "line 1: names no column for the picture, or none for its text; the first"),
        (' "image",caption\na.jpg,a cat\n', "line 1: the first line does not name the columns; a row should have"),
        ('{"image": "a.jpg", "caption": "a cat}', 'line 1: not JSON from column 31 on; it should be {"image"'),
        ('{"image": "a.jpg"', 'line 1: not JSON from column 18 on; it should be {"image"'),
        ('{"images": [],\n "annotations": [}', "line 2: not JSON from column 18 on; it should be one document"),
        ('{"images": 3, "annotations": []}\n', 'line 1: "image" is missing'),
        (_without(_coco, "annotations", 1, "caption"), r'annotations\[1\]: "caption" is not text; it should be'),
        (_without(_coco, "annotations", 0, "image_id"), r'annotations\[0\]: "image_id" is not a whole number'),
        (_without(_coco, "images", 1), r'annotations\[1\]: "image_id" 9 is the "id" of no image; it should be'),
        (_without(_coco, "images", 0, "file_name"), r'images\[0\]: "file_name" is not text; it should be'),
        (_without(_karpathy, "images", 1, "sentences"), r'images\[1\]: "sentences" is not a list; it should be'),
        (_without(_karpathy, "images", 1, "sentences", 0), r'images\[1\]: "sentences" is an empty list; it should be'),
        (_without(_karpathy, "images", 0, "sentences", 1, "raw"), r'images\[0\]: "raw" is not text; it should be'),
        (_with(_karpathy, 5, "images", 0, "split"), r'images\[0\]: "split" is not text; it should be'),
        (_with(_karpathy, 5, "images", 0, "filepath"), r'images\[0\]: "filepath" is not text; it should be'),
        (_with(_karpathy, 5, "images", 0), r'images\[0\]: not a JSON object with "sentences"; it should be'),
        (_without(_karpathy, "images", 0, "filename"), r'images\[0\]: "filename" is not text; it should be'),
    ],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_wrong_row_is_named_with_its_place(pictures: Path, text: str, complaint: str) -> None:
    (pictures / "captions").write_text(text)
    with pytest.raises(InputError, match=f"^{pictures / 'captions'}, {complaint}"):
        read_captions(pictures / "captions")


def test_a_table_that_is_no_utf_8_is_named(pictures: Path) -> None:
    (pictures / "captions.csv").write_bytes("image,caption\na.jpg,eine Kätze\n".encode("latin-1"))
    with pytest.raises(InputError, match="line 1 or later: not UTF-8; save the table as UTF-8"):
        read_captions(pictures / "captions.csv")
