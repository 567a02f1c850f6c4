"""Pixels: `hf` agrees with the reference image processor, `plain` has no frame and no bars, files are read strictly."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.models.bridgetower.image_processing_pil_bridgetower import BridgeTowerImageProcessorPil

from benchmarks.pictures import photo
from bridgetower.errors import ModelError
from bridgetower.pictures.decode import decode
from bridgetower.pictures.preprocess import CLIP_MEAN, CLIP_STD, Preprocessing, _hf_size, preprocess

TOLERANCE = 1e-5  # absolute, on normalised pixels; one step of 1/255 is 0.014

BLACK = -np.array(CLIP_MEAN) / np.array(CLIP_STD)  # per channel, after normalisation


def noise(width: int, height: int) -> Image.Image:
    """A picture in which every pixel matters: an offset of one shows."""
    pixels = np.random.default_rng(width * 10007 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def reference(image: Image.Image, spec: Preprocessing) -> Any:
    processor = BridgeTowerImageProcessorPil(
        size={"shortest_edge": spec.shortest_edge},
        crop_size={"shortest_edge": spec.crop_size},
        size_divisor=spec.size_divisor,
    )
    return processor(image, return_tensors="np")["pixel_values"][0]


SIZES = [
    (1, 1), (2, 3), (31, 33), (96, 96), (97, 97), (98, 96), (98, 98), (288, 288), (294, 294), (295, 294),
    (640, 480), (480, 640), (641, 479), (333, 500), (500, 333), (799, 1333), (1333, 800), (1335, 800),
    (300, 100), (100, 300), (900, 300), (1023, 257), (257, 1023), (1000, 220), (17, 75),
]  # fmt: skip
THIN = [(1200, 100), (100, 1200), (5, 60), (60, 5), (1500, 101)]  # at 96 the reference has no pixel left for these
SPECS = [
    Preprocessing(288, 288),
    Preprocessing(294, 294),  # floored to 288: a frame of 3
    Preprocessing(96, 96),
    Preprocessing(98, 98),  # a frame of 1
    Preprocessing(97, 97),  # an odd frame: 0 before, 1 after
    Preprocessing(98, 98, size_divisor=14),
    Preprocessing(97, 96, size_divisor=1),
    Preprocessing(128, 112, size_divisor=16),  # crop smaller than the short side
    Preprocessing(100, 224),  # crop larger than the picture
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.shortest_edge}-{s.crop_size}-{s.size_divisor}")
def test_hf_agrees_with_the_reference(spec: Preprocessing) -> None:
    for width, height in SIZES + (THIN if spec.shortest_edge > 200 else []):
        image = noise(width, height)
        ours = preprocess(image, spec)
        assert ours.shape == (3, spec.crop_size, spec.crop_size)
        assert ours.dtype == np.float32
        assert ours.flags.c_contiguous
        np.testing.assert_allclose(ours, reference(image, spec), rtol=0, atol=TOLERANCE, err_msg=f"{width}x{height}")


def test_hf_agrees_with_the_reference_at_every_aspect_ratio() -> None:
    """The floor to multiples of 32 hangs on the last bit of a float: walk over many sides."""
    spec = Preprocessing(96, 98)
    for width in range(60, 260, 3):
        image = noise(width, 120)
        np.testing.assert_allclose(preprocess(image, spec), reference(image, spec), rtol=0, atol=TOLERANCE)
        image = image.transpose(Image.Transpose.ROTATE_90)
        np.testing.assert_allclose(preprocess(image, spec), reference(image, spec), rtol=0, atol=TOLERANCE)


def test_hf_frames_the_large_checkpoints_in_black() -> None:
    pixels = preprocess(Image.new("RGB", (400, 400), "white"), Preprocessing(294, 294))
    inner = pixels[:, 3:-3, 3:-3]
    assert np.all(inner > 1.5)
    frame = pixels.copy()
    frame[:, 3:-3, 3:-3] = BLACK[:, None, None]
    np.testing.assert_allclose(frame, np.broadcast_to(BLACK[:, None, None], frame.shape), atol=TOLERANCE)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (3, 900), (4000, 130)])
@pytest.mark.parametrize("spec", [Preprocessing(294, 294), Preprocessing(294, 294, name="plain")], ids=["hf", "plain"])
def test_pictures_too_thin_for_the_reference_still_become_pixels(size: tuple[int, int], spec: Preprocessing) -> None:
    pixels = preprocess(Image.new("RGB", size, "white"), spec)
    assert pixels.shape == (3, 294, 294)
    white = np.all(pixels > 1.5, axis=0)
    assert white.any()
    assert white.all() == (spec.name == "plain")


def test_plain_is_the_central_square_without_frame_or_bars() -> None:
    spec = Preprocessing(294, 294, name="plain")
    image = Image.new("RGB", (900, 300), "red")
    image.paste((0, 255, 0), (300, 0, 600, 300))
    pixels = preprocess(image, spec)
    green = (np.array([0, 1, 0]) - CLIP_MEAN) / CLIP_STD
    expected = np.broadcast_to(green[:, None, None], pixels.shape)
    np.testing.assert_allclose(pixels[:, :, 3:-3], expected[:, :, 3:-3], atol=TOLERANCE)  # bicubic blends the edges
    assert np.all(pixels[1, :, [0, -1]] > 0)


def test_plain_of_a_square_of_the_right_size_is_that_square() -> None:
    image = noise(98, 98)
    pixels = preprocess(image, Preprocessing(98, 98).named("plain"))
    back = pixels * np.array(CLIP_STD)[:, None, None] + np.array(CLIP_MEAN)[:, None, None]
    np.testing.assert_allclose(back.transpose(1, 2, 0) * 255, np.asarray(image), atol=1e-3)


def test_mean_and_std_of_the_checkpoint_are_used() -> None:
    spec = Preprocessing(32, 32, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    pixels = preprocess(Image.new("RGB", (32, 32), (255, 255, 255)), spec)
    np.testing.assert_allclose(pixels[:, 0, 0], [1.0, 3.0, 0.5], atol=TOLERANCE)


def test_a_picture_that_is_not_rgb_is_a_defect_of_the_caller() -> None:
    with pytest.raises(ValueError, match="RGB"):
        preprocess(Image.new("L", (8, 8)), Preprocessing(32, 32))


def test_a_recipe_by_name_and_back() -> None:
    spec = Preprocessing(128, 98, size_divisor=14)
    assert spec.named("plain") == Preprocessing(128, 98, name="plain", size_divisor=14)
    assert spec.named("plain").named("hf") == spec
    with pytest.raises(ModelError, match='"square" is unknown'):
        spec.named("square")


# --- pictures that were decoded at a fraction of their size


def jpeg(width: int, height: int) -> bytes:
    buffer = BytesIO()
    photo(width + height, width, height).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def test_what_is_enough_is_twice_the_side_that_pictures_are_resized_to() -> None:
    spec = Preprocessing(128, 96)
    assert (spec.min_side, spec.named("plain").min_side) == (256, 192)


@pytest.mark.parametrize("spec", [Preprocessing(96, 96), Preprocessing(98, 98), Preprocessing(96, 96, name="plain")])
@pytest.mark.parametrize("size", [(2000, 1500), (1501, 1999), (1603, 801), (793, 3001)])
def test_a_fraction_of_a_jpeg_gives_nearly_the_pixels_of_the_whole(spec: Preprocessing, size: tuple[int, int]) -> None:
    data = jpeg(*size)
    full, small = (decode(data, Path("photo.jpg"), min_side=side) for side in (None, spec.min_side))
    assert small.image.width <= full.image.width / 4 + 1
    difference = np.abs(preprocess(small, spec) - preprocess(full, spec)) * np.array(spec.std)[:, None, None] * 255
    assert difference.max() < 8  # steps of 1/255
    assert difference.mean() < 0.6


def test_the_layout_is_that_of_the_whole_picture() -> None:
    """A copy of 1/8 has rounded sides, and one pixel of them may decide over 32 of the result."""
    spec, data = Preprocessing(96, 96), jpeg(1593, 1200)
    full, small = (decode(data, Path("photo.jpg"), min_side=side) for side in (None, 150))
    assert small.image.size == (200, 150)
    assert _hf_size(1593, 1200, spec) == (96, 96)
    assert _hf_size(200, 150, spec) == (128, 96)
    whole = preprocess(full, spec)
    assert np.abs(preprocess(small, spec) - whole).mean() < 0.05
    assert np.abs(preprocess(small.image, spec) - whole).mean() > 0.2


def test_a_picture_decoded_in_full_gives_the_same_as_the_bare_image() -> None:
    for spec in (SPECS[1], SPECS[1].named("plain")):
        decoded = decode(jpeg(641, 479), Path("photo.jpg"))
        np.testing.assert_array_equal(preprocess(decoded, spec), preprocess(decoded.image, spec))


# --- files


def test_reads_what_the_reference_saved(tmp_path: Path) -> None:
    saved = BridgeTowerImageProcessorPil(size={"shortest_edge": 98}, crop_size={"shortest_edge": 98}, size_divisor=14)
    saved.save_pretrained(tmp_path)
    data = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert Preprocessing.from_json(data, image_size=98) == Preprocessing(98, 98, size_divisor=14)
    assert Preprocessing.from_json({"image_processor": data, "processor_class": "x"}, 98).size_divisor == 14


def test_reads_the_older_files_of_the_hub() -> None:
    """No crop size, or null: the crop is `size` then; and the keys of the original training run stand beside."""
    older = {"crop_size": None, "size": {"shortest_edge": 294}, "max_text_len": 50, "tokenizer": "roberta-large"}
    assert Preprocessing.from_json(older, 294) == Preprocessing(294, 294)
    del older["crop_size"]
    assert Preprocessing.from_json(older, 294) == Preprocessing(294, 294)
    assert Preprocessing.from_json({"size": 294, "crop_size": {"height": 294, "width": 294}}, 294).crop_size == 294
    assert Preprocessing.from_json({}, 294) == Preprocessing(294, 294)


@pytest.mark.parametrize(
    "spec", [Preprocessing(128, 98, size_divisor=14, mean=(0.1, 0.2, 0.3)), SPECS[1].named("plain")]
)
def test_what_is_written_reads_back_the_same(spec: Preprocessing, tmp_path: Path) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(spec.to_json()))
    assert Preprocessing.from_json(json.loads(path.read_text()), spec.crop_size) == spec


def test_the_reference_reads_what_is_written(tmp_path: Path) -> None:
    spec = Preprocessing(98, 98, size_divisor=14)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(spec.to_json()))
    image = noise(200, 150)
    theirs = BridgeTowerImageProcessorPil.from_pretrained(tmp_path)(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(preprocess(image, spec), theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_center_crop": False}, "do_center_crop"),
        ({"do_normalize": False}, "do_normalize"),
        ({"do_resize": False}, "do_resize"),
        ({"do_rescale": False}, "do_rescale"),
        ({"resample": 2}, "resample"),
        ({"rescale_factor": 1.0}, "rescale_factor"),
        ({"rescale_factor": "1/255"}, "rescale_factor"),
        ({"size": {"height": 294, "width": 300}}, "size"),
        ({"size": {"longest_edge": 294}}, "size"),
        ({"size": "294"}, "size"),
        ({"size": 0}, "size"),
        ({"crop_size": {"shortest_edge": 288}}, "288 px but the network takes 294"),
        ({"size_divisor": 0}, "size_divisor"),
        ({"size_divisor": True}, "size_divisor"),
        ({"image_mean": [0.5, 0.5]}, "image_mean"),
        ({"image_mean": 0.5}, "image_mean"),
        ({"image_std": [1, 1, 0]}, "image_std"),
        ({"image_std": [1, 1, float("inf")]}, "image_std from 0.001 to 1000"),
        ({"image_std": [1, 1, float("nan")]}, "image_std from 0.001 to 1000"),
        ({"image_std": [1, 1, 1e-30]}, "image_std from 0.001 to 1000"),
        ({"image_mean": [0, 0, float("nan")]}, "image_mean must be from -1000 to 1000"),
        ({"image_mean": [0, 0, -1e300]}, "image_mean must be from -1000 to 1000"),
        ({"image_mean": [0, 0, 10**400]}, "image_mean holds too large a number"),
        ({"rescale_factor": 10**400}, "rescale_factor"),
        ({"size": {"shortest_edge": 10_000_000}}, "size = 10000000 must be a whole number of pixels, from 1 to 4096"),
        ({"size_divisor": 10**400}, "size_divisor"),
        ({"preprocessing": "square"}, "square"),
        ({"image_processor": []}, "image_processor"),
    ],
)
def test_settings_that_would_give_other_pixels_are_refused(change: dict[str, Any], message: str) -> None:
    data = {"size": {"shortest_edge": 294}, **change}
    with pytest.raises(ModelError, match=message) as caught:
        Preprocessing.from_json(data, 294, source="some/preprocessor_config.json")
    assert "\n" not in str(caught.value)
