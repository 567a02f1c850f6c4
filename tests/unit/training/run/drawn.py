"""A small set of pictures with captions, and settings of a run that learns them in moments."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from tests.tiny import CAPTIONS

COLOURS = ("red", "green", "blue", "white", "black", "yellow", "orange", "pink")


def draw_set(folder: Path, number: int = 24) -> Path:
    """Write pictures, each of a colour and no two equal, with a caption for each; return the captions file."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(number):
        picture = Image.new("RGB", (96, 96), COLOURS[i % len(COLOURS)])
        picture.putpixel((i, i), (i, 200 - i, 7))
        picture.save(folder / f"{i}.png")
        rows.append({"image": f"{i}.png", "captions": [f"{CAPTIONS[i % len(CAPTIONS)]} number {i}"]})
    file = folder / "captions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def small(data: Path, init: Path | str, out: Path, **changes: Any) -> dict[str, Any]:
    """Settings as keywords of TrainSettings, with plain values: in fp32 on the CPU, a validation each third step."""
    return {
        "data": str(data), "init": str(init), "out": str(out), "steps": 8, "batch": 6, "lr": 1e-3, "new_factor": 1.0,
        "val_share": 0.25, "eval_every": 3, "log_every": 1, "device": "cpu", "precision": "fp32", "workers": 1,
        **changes,
    }  # fmt: skip
