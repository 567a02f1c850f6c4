"""How far a call is: the last that is told is that all is done."""

from pathlib import Path

import pytest

from bridgetower import Library, Model
from bridgetower.records import OnProgress
from bridgetower_cli import progress
from bridgetower_cli.progress import by_worker
from tests.fakes import FakeEncoder, paint

pytestmark = pytest.mark.usefixtures("decode_here")

STEPS = 10


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures from green to red, r0 (green) to r9 (red)."""
    for step in range(STEPS):
        paint(tmp_path / "photos" / f"r{step}.png", (28 * step, 252 - 28 * step, 0))
    return tmp_path / "photos"


def test_the_last_call_of_progress_says_that_all_is_done(photos: Path, tmp_path: Path) -> None:
    (photos / "zz.png").write_bytes(b"no picture")
    fake = FakeEncoder()
    model = Model.from_parts(fake, fake)
    told: dict[str, list[tuple[int, int]]] = {}

    def tell(name: str) -> OnProgress:
        told[name] = []
        return lambda done, total: told[name].append((done, total))

    with Library(tmp_path / "index", model) as library:
        library.index([photos], on_publish=tell("publish"))
        library.export(tmp_path / "export", on_progress=tell("export"))
        list(library.check(on_progress=tell("check")))
        library.prune(on_progress=tell("prune"))
        library.search("red", depth=3, on_progress=tell("search"))
        library.fill("a red <mask>", depth=3, on_progress=tell("fill"))
        for name in [f"r{step}.png" for step in range(9, 5, -1)]:  # the best four, each unreadable and there
            (photos / name).write_bytes(b"no picture")
        library.search("red", depth=4, on_progress=tell("search where many are unreadable"))
        library.fill("a red <mask>", depth=4, on_progress=tell("fill where many are unreadable"))
        unreadable = [photos / f"r{step}.png" for step in (0, 1, 2, 3, 9, 8)]
        model.rerank("red", unreadable, on_progress=tell("rerank"))
        model.fill("a red <mask>", unreadable, on_progress=tell("fill of pictures"))
    with Library(tmp_path / "copy", model) as copy:
        copy.import_folder(tmp_path / "export", on_progress=tell("import"))
    for name, calls in told.items():
        assert calls, name
        done, total = calls[-1]
        assert done == total > 0, (name, calls)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({}, ""),
        ({"node1-1": 48, "node-2-1": 64, "node1-2": 32}, "node1: 48 + 32, node-2: 64"),
        ({f"a-{worker}": worker for worker in range(1, 8)}, "7 workers on 1 host: 1 to 7 each"),
        ({f"{host}-1": 5 for host in "abcd"}, "4 workers on 4 hosts: 5 to 5 each"),
    ],
)
def test_the_counts_of_workers_take_few_words(counts: dict[str, int], said: str) -> None:
    assert by_worker(counts) == said


def test_what_is_done_when_another_unit_begins_was_not_done_in_no_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0)
    now = iter(range(100))
    meter = progress.Meter("matching", "pictures", clock=lambda: float(next(now)))
    meter.update(3, 3)
    for done in (1, 2):
        meter.update(done, 3, "explaining", "captions")
    _, first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("explaining: 1 of 3 captions")
    assert "explaining: 2 of 3 captions, 0." in second  # a caption in more than a second
