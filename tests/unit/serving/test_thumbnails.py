"""Small pictures of files that the caller names."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bridgetower import PictureError, UsageError, thumbnails
from tests.clouds import evict
from tests.fakes import paint


def test_each_file_gets_a_small_upright_jpeg_or_the_reason_in_order(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 200), (250, 0, 0)).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8\xff no picture")
    names = ["noise.png", "gone.png", "turned.jpg", "damaged.jpg", "."]
    noisy, gone, turned, damaged, folder = thumbnails([tmp_path / name for name in names], 320, most_bytes=13_000)
    assert isinstance(noisy, bytes) and len(noisy) <= 13_000
    assert isinstance(turned, bytes)
    image = Image.open(BytesIO(turned))
    assert (image.format, image.size, dict(image.getexif())) == ("JPEG", (160, 320), {})
    for error, reason in ((gone, "no such file"), (damaged, ""), (folder, "not a file but a folder")):
        assert isinstance(error, PictureError) and reason in error.reason


def test_without_a_limit_of_bytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    [large] = thumbnails([tmp_path / "noise.png"], 640)
    assert isinstance(large, bytes) and len(large) > 100_000


def test_a_file_in_the_cloud_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = paint(tmp_path / "a.png", "red")
    evict(monkeypatch, file)
    [error] = thumbnails([file])
    assert isinstance(error, PictureError) and "cloud" in error.reason


def test_wrong_arguments_are_refused_at_once(tmp_path: Path) -> None:
    for side, most in ((0, None), (5000, None), (64, 10)):
        with pytest.raises(UsageError):
            thumbnails([tmp_path], side, most_bytes=most)
    with pytest.raises(UsageError):
        thumbnails("a.png")
