"""`--engine ray` on a real cluster: a head and two nodes on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from bridgetower import Embedded, FileContent, Library, Model, ModelError, ProcessError, Refused
from bridgetower.encoders.cluster.actor import CheckpointLoader
from bridgetower.encoders.cluster.messages import Start, write
from bridgetower.encoders.cluster.ray_engine import _COMMAND, RayEngine
from tests.cluster.doubles import Load
from tests.cluster.ray_nodes import Cluster, wait_for
from tests.fakes import FakeEncoder, paint

GALLERY = sorted(Path("examples/gallery").resolve().glob("*.jpg"))
FAKE, POLITE = FakeEncoder(), Load()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        cluster.start()
        with pytest.MonkeyPatch.context() as patch:
            for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
                patch.setenv(name, cluster.environment[name])
            patch.setenv("RAY_ADDRESS", cluster.direct)
            yield cluster
    finally:
        cluster.stop()


@pytest.fixture(autouse=True)
def nothing_left(cluster: Cluster) -> Iterator[None]:
    """No actor of ours outlives a run."""
    yield
    wait_for(lambda: not cluster.workers())


def bt(cluster: Cluster, *arguments: object, environment: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "bridgetower_cli", *map(str, arguments)],
        env={**cluster.environment, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ran(cluster: Cluster, *arguments: object, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    process = bt(cluster, *arguments, environment=environment)
    stdout, stderr = process.communicate(timeout=100)
    return process.returncode, stdout, stderr


def rows(directory: Path) -> list[tuple[object, ...]]:
    """All that an index says of its pictures, vectors byte for byte, and of skipped files."""
    with Library(directory) as library:
        skipped = [(skip.path, skip.reason) for skip in library.skipped()]
        with library._readers.lend() as store:
            return [*store.catalog.entries(), *skipped]


def engine(load: Load = POLITE, **options: object) -> RayEngine:
    """An engine at the cluster of RAY_ADDRESS."""
    return RayEngine(FAKE.preprocessing, 4, load, FAKE.fingerprint, **options)  # type: ignore[arg-type]


def contents(folder: Path, colours: list[tuple[int, int, int]]) -> list[FileContent]:
    """A picture of each colour."""
    made = []
    for place, colour in enumerate(colours):
        path = paint(folder / f"{place:03}.png", colour)
        made.append(FileContent(path.read_bytes(), path, b""))
    return made


def shades(number: int) -> list[tuple[int, int, int]]:
    """Colours that are all different, and none of them red."""
    return [(place % 16, 100 + place // 16, 200) for place in range(number)]


def expected(given: list[FileContent]) -> list[bytes]:
    """The vectors that this process makes."""
    vectors = Model.from_parts(FAKE).embed_images([one.data for one in given])
    return [vector.tobytes() for vector in vectors]


def made(results: list[Embedded | Refused]) -> list[bytes]:
    return [result.vector.tobytes() for result in results if isinstance(result, Embedded)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in GALLERY[:40]:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return folder


def test_an_index_equals_that_of_this_process_byte_for_byte(
    cluster: Cluster, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = ("index", photos, "--model", "demo", "--index")
    assert ran(cluster, *index, tmp_path / "local", "--engine", "local", "--workers", 2)[0] == 3
    code, stdout, stderr = ran(cluster, *index, tmp_path / "here", "--engine", cluster.address)
    assert (code, stdout) == (3, ""), stderr
    direct = {"RAY_ADDRESS": cluster.direct}
    monkeypatch.delitem(cluster.environment, "RAY_AUTH_MODE")  # the token is sent nevertheless
    there = (*index, tmp_path / "there", "--engine", "ray", "--shared-paths")
    code, stdout, stderr = ran(cluster, *there, environment=direct)
    assert (code, stdout) == (3, ""), stderr
    assert "cannot read" not in stderr
    assert rows(tmp_path / "here") == rows(tmp_path / "local")
    assert rows(tmp_path / "there") == rows(tmp_path / "local")
    assert len(rows(tmp_path / "local")) == 41


def test_an_evaluation_equals_that_of_this_process(cluster: Cluster, photos: Path) -> None:
    captions = photos / "captions.jsonl"
    lines = [f'{{"image": "{path.name}", "captions": ["{path.stem.replace("-", " ")}"]}}' for path in GALLERY[:40]]
    captions.write_text("\n".join(lines))
    evaluate = ("eval", captions, "--model", "demo", "--depth", 1, "--json")
    alone, shared = ran(cluster, *evaluate), ran(cluster, *evaluate, "--engine", cluster.address, "--shared-paths")
    assert alone[0] == 0
    assert shared[:2] == alone[:2], shared[2]


def test_files_that_differ_on_a_worker_are_sent_there(cluster: Cluster, tmp_path: Path) -> None:
    said: list[str] = []
    given = contents(tmp_path, shades(9))
    given = [one._replace(hash=sha256(one.data).digest()) for one in given]
    elsewhere = given[3].path
    moved = elsewhere.rename(tmp_path / "moved.png")
    results = engine(shared_paths=True, say=said.append).embed(given)
    assert made([*results]) == expected([*given[:3], *given[4:]])  # it is gone here, too
    elsewhere.symlink_to(moved)
    Image.new("RGB", (9, 9)).save(given[5].path)
    [*found] = engine(shared_paths=True, say=said.append).embed(given)
    assert [place for place, one in enumerate(found) if isinstance(one, Refused)] == [5]
    refused = found[5]
    assert isinstance(refused, Refused) and not refused.lasting
    assert any("it has another content there" in line for line in said)


def test_a_picture_that_kills_its_worker_is_found_and_skipped(cluster: Cluster, tmp_path: Path) -> None:
    colours = shades(12)
    colours[6] = (255, 0, 0)
    given = contents(tmp_path, colours)
    said: list[str] = []
    results = [*engine(Load(dies=True), say=said.append).embed(given)]
    assert [place for place, result in enumerate(results) if isinstance(result, Refused)] == [6]
    found = results[6]
    assert isinstance(found, Refused) and found.reason.startswith("the worker died on it 3 times, last ")
    assert made(results) == expected([*given[:6], *given[7:]])
    assert any("is lost" in line for line in said)


def test_workers_and_nodes_that_die_cost_nothing_and_new_ones_join(cluster: Cluster, tmp_path: Path) -> None:
    given = contents(tmp_path, shades(160))
    results: list[Embedded | Refused] = []
    running = engine(Load(seconds=0.25)).embed(given)

    def go_on(number: int) -> None:
        results.extend(next(running) for _ in range(number))

    go_on(8)
    os.kill(cluster.workers()[0], signal.SIGKILL)
    go_on(40)
    cluster.kill_node(cluster.nodes.pop())
    go_on(40)
    cluster.nodes.append(cluster.add_node())
    results += running
    assert made(results) == expected(given)
    assert len({result.worker for result in results if isinstance(result, Embedded)}) >= 3


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_leaves_no_actor_and_the_next_one_goes_on(
    cluster: Cluster, photos: Path, tmp_path: Path, how: signal.Signals
) -> None:
    for path in GALLERY[40:]:
        (photos / path.name).write_bytes(path.read_bytes())
    index = ("index", photos, "--model", "demo", "--index", tmp_path / "index", "--engine", cluster.address)
    process = bt(cluster, *index)
    wait_for(lambda: committed(tmp_path / "index") >= 16, 60)
    began = time.monotonic()
    process.send_signal(how)
    process.communicate(timeout=10)
    assert time.monotonic() - began < 3
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[how]
    wait_for(lambda: not cluster.workers(), 15)
    kept = committed(tmp_path / "index")
    assert 16 <= kept < len(GALLERY)
    if how == signal.SIGKILL:
        code, _, stderr = ran(cluster, *index)
        assert code == 3 and f"indexed {len(GALLERY) - kept}, " in stderr


def committed(directory: Path) -> int:
    try:
        with Library(directory) as library:
            return len(library)
    except Exception:  # noqa: BLE001 - there is no index yet
        return 0


def test_a_driver_that_is_left_alone_while_it_connects_ends(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"ray://127.0.0.1:{silent.getsockname()[1]}"
        driver = subprocess.Popen(_COMMAND, stdin=subprocess.PIPE, env=cluster.environment)
        assert driver.stdin is not None
        write(Start(address, POLITE, FAKE.fingerprint, "cpu", None, None, 60.0), driver.stdin)
        silent.accept()[0].close()  # it connects
        driver.stdin.close()
        assert driver.wait(10) == 1


def test_a_worker_takes_a_gpu_that_ray_has(cluster: Cluster, tmp_path: Path) -> None:
    given = contents(tmp_path, shades(8))
    node = cluster.add_node(gpus=1)
    said: list[str] = []
    assert made([*engine(Load(device="cuda"), device="cuda").embed(given)]) == expected(given)
    with pytest.raises(ProcessError, match="the device is"):  # so "auto" takes it, too
        list(engine(Load(device="cpu"), say=said.append).embed(given))
    [line] = said  # for three starts
    assert line.startswith(f"note: a worker on {socket.gethostname()} cannot start: the device is cuda; ")
    cluster.kill_node(node)


def test_another_model_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    given = contents(tmp_path, shades(2))
    with pytest.raises(ModelError, match=r"^worker .+-\d has another model \(weights abc, not "):
        list(engine(Load(weights="abc")).embed(given))


def test_a_model_that_is_not_on_the_workers_is_told(cluster: Cluster, tmp_path: Path) -> None:
    load = CheckpointLoader(str(tmp_path / "absent"), "fp32", "hf")
    far = RayEngine(FAKE.preprocessing, 4, load, FAKE.fingerprint)
    with pytest.raises(ModelError, match=r"^worker .+-\d cannot load the model, .*absent"):
        list(far.embed(contents(tmp_path, shades(2))))


def test_no_place_for_a_worker_ends_the_run(cluster: Cluster, tmp_path: Path) -> None:
    given = contents(tmp_path, shades(2))
    with pytest.raises(ProcessError, match=r"no worker has found a place .* 0 GPUs"):
        list(engine(device="cuda", patience_s=2).embed(given))


def test_no_cluster_is_told_in_seconds(cluster: Cluster, photos: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    code, stdout, stderr = ran(
        cluster, "index", photos, "--model", "demo", "--index", tmp_path / "index", "--engine", "ray://127.0.0.1:9"
    )
    assert (code, stdout) == (71, "")
    assert stderr.splitlines()[-1].startswith("error: no Ray cluster at ray://127.0.0.1:9: ")
    assert time.monotonic() - began < 20


def test_the_loss_of_the_cluster_ends_the_run_with_one_line(cluster: Cluster, tmp_path: Path) -> None:
    """The last test: it ends the cluster."""
    given = contents(tmp_path, shades(400))
    running = engine(Load(seconds=0.25), address=cluster.address).embed(given)
    assert next(running) is not None
    cluster.stop()
    with pytest.raises(ProcessError, match="the Ray cluster was lost"):
        list(running)
