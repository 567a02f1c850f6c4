"""The installed `bt`, as a process of its own: on a tiny checkpoint, under signals, with readers that go away."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from bridgetower.checkpoints.find import DEMO_FOLDER
from bridgetower.errors import StoreError
from bridgetower.index.reader import IndexReader
from bridgetower.pictures.decode_pool import environment
from tests.fakes import HOSTILE, paint
from tests.tiny import tiny_checkpoint
from tests.unit.pictures.test_decode_pool import eventually, runs, started

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "examples" / "gallery"
TWO_CATS = "two-cats-on-a-couch-in-the-desert.jpg"
BT = Path(sys.executable).with_name("bt")
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and descriptors")

# Ctrl-C reaches it even where the tests run in the background.
HEARS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
# Indexes with a model that calls `pause` for each batch.
INDEX = (
    HEARS
    + """
from types import SimpleNamespace
import bridgetower.encoders.torch_encoder, bridgetower.checkpoints.find
from tests.fakes import FakeEncoder

class Slow(FakeEncoder):
    def embed_images(self, pixels):
        pause()
        return super().embed_images(pixels)

slow = Slow()
checkpoint = SimpleNamespace(name="fake", heads=slow.heads, preprocessing=slow.preprocessing)
checkpoint.with_preprocessing = lambda name: checkpoint
bridgetower.checkpoints.find.resolve = lambda name, **options: checkpoint
bridgetower.encoders.torch_encoder.fingerprint_of = lambda checkpoint, precision: slow.fingerprint
bridgetower.encoders.torch_encoder.TorchEncoder = lambda checkpoint, runtime, **options: slow
from bridgetower_cli.app import main
main()
"""
)
# Waits at the second batch until it is stopped.
WAITING_INDEX = (
    """
import time

def pause():
    batches.append(1)
    time.sleep(600 if len(batches) == 2 else 0)

batches = []
"""
    + INDEX
)


def bt(*arguments: str | bytes | Path, cwd: Path, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([BT, *arguments], cwd=cwd, input=input, capture_output=True, timeout=300, check=False)


def test_another_tokenizer_is_told_each_time_and_the_first_digest_kept(tmp_path: Path) -> None:
    model, photos = tmp_path / "model", tmp_path / "photos"
    shutil.copytree(DEMO_FOLDER, model)
    photos.mkdir()
    shutil.copy(GALLERY / TWO_CATS, photos)
    assert bt("index", "photos", "--model", "model", "--index", "index", cwd=tmp_path).returncode == 0
    with IndexReader.open(tmp_path / "index") as store:
        first = store.fingerprint.tokenizer_sha256
    assert first is not None

    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["merges"].pop()
    (model / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    shutil.copy(GALLERY / "a-dog-on-a-couch-in-the-rain.jpg", photos)
    for command in (("search", "two cats"), ("index", "photos")):
        done = bt(*command, "--index", "index", cwd=tmp_path)
        assert (done.returncode, b"is another than when the index was made" in done.stderr) == (0, True), done.stderr
        with IndexReader.open(tmp_path / "index") as store:
            assert store.fingerprint.tokenizer_sha256 == first


def test_a_session_on_a_real_network(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "model")
    for colour in ("red", "blue"):
        paint(tmp_path / "photos" / f"{colour}.png", colour)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no picture")

    indexed = bt("index", "photos", "--model", "model", "--precision", "fp32", cwd=tmp_path)
    assert (indexed.returncode, indexed.stdout) == (3, b"")
    assert b"indexed 2, reused 0, unchanged 0, removed 0, skipped 1: 3 files" in indexed.stderr

    found = bt("search", "two cats on a couch", "--json", "--quiet", "--precision", "fp32", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, b"")
    hits = [json.loads(line) for line in found.stdout.splitlines()]
    assert sorted(hit["path"] for hit in hits) == [str(tmp_path / "photos" / f"{c}.png") for c in ("blue", "red")]
    assert all(hit["verified"] and 0 <= hit["match"] <= 1 and -1 <= hit["similarity"] <= 1 for hit in hits)

    matched = bt(
        *("match", hits[0]["path"], "--text", "two cats on a couch", "--json"),
        *("--model", "model", "--precision", "fp32"),
        cwd=tmp_path,
    )
    [pair] = [json.loads(line) for line in matched.stdout.splitlines()]
    assert pair["match"] == pytest.approx(hits[0]["match"], abs=1e-4)
    assert pair["similarity"] == pytest.approx(hits[0]["similarity"], abs=1e-3)  # stored as float16

    filled = bt("fill", "a <mask> on a couch", "--json", "--top", "3", "--quiet", cwd=tmp_path)
    assert (filled.returncode, filled.stderr) == (0, b"")
    words = [json.loads(line) for line in filled.stdout.splitlines()]
    assert [(word["mask"], word["rank"]) for word in words] == [(0, 1), (0, 2), (0, 3)]


@pytest.mark.slow
def test_an_index_moves_and_foreign_vectors_are_verified(tmp_path: Path) -> None:
    photos, moved, odd = tmp_path / "photos", tmp_path / "moved", os.fsdecode(b"odd \xff\n.jpg")
    shutil.copytree(GALLERY, photos, ignore=lambda folder, names: set(sorted(names)[12:]))
    shutil.copy(GALLERY / TWO_CATS, photos)
    shutil.copy(GALLERY / TWO_CATS, photos / odd)
    (photos / "bad.jpg").write_bytes(b"no picture")
    precision = ("--precision", "fp32")
    assert bt("index", "photos", "--model", "demo", *precision, "--index", "here", cwd=tmp_path).returncode == 3
    search = ("search", "two cats on a couch", "--depth", "5", "--top", "20", *precision)
    expected = bt(*search, "--json", "--index", "here", cwd=tmp_path).stdout
    assert len(expected.splitlines()) == 13

    exported = bt("export", "export", "--index", "here", cwd=tmp_path)
    assert (exported.returncode, exported.stdout) == (0, os.fsencode(tmp_path / "export") + b"\n")
    assert exported.stderr.startswith(b"exported 13 pictures (0 without a file), 14 files, 1 skipped: ")
    photos.rename(moved)
    os.utime(moved / TWO_CATS)
    moving = ("import", "export", "--map", f"{photos}={moved}", "--index", "there")
    assert bt(*moving, cwd=tmp_path).stderr == b"imported 13, known 0: 14 files\n"
    found = bt(*search, "--json", "--index", "there", cwd=tmp_path).stdout
    assert found == expected.replace(json.dumps(str(photos))[1:-1].encode(), json.dumps(str(moved))[1:-1].encode())
    again = bt("index", "moved", *precision, "--index", "there", cwd=tmp_path).stderr
    assert b"indexed 0, reused 1, unchanged 13, removed 0, skipped 1: 15 files" in again

    pictures = sorted(path for path in moved.iterdir() if path.name not in ("bad.jpg", odd) and path.suffix == ".jpg")
    vectors = np.random.default_rng(0).normal(size=(len(pictures), 400)).astype(np.float32)
    np.save(tmp_path / "x.npy", vectors)
    np.save(tmp_path / "q.npy", vectors[:5].sum(axis=0))
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"path": str(path)}) + "\n" for path in pictures))
    arguments = ("import", "--vectors", "x.npy", "--paths", "x.jsonl", "--name", "random", "--index", "foreign")
    assert bt(*arguments, cwd=tmp_path).stderr == b"imported 13, known 0, skipped 0: 13 files\n"
    vector = ("--query-vector", "-", "--model", "demo", "--index", "foreign", "--json", "--top", "13")
    query = (tmp_path / "q.npy").read_bytes()
    verified = bt("search", "two cats on a couch", *vector, "--depth", "13", *precision, cwd=tmp_path, input=query)
    best, *rest = [json.loads(line) for line in verified.stdout.splitlines()]
    judged = next(json.loads(line) for line in expected.splitlines() if TWO_CATS.encode() in line or b"odd" in line)
    nearest = sorted([best, *rest], key=lambda hit: -hit["similarity"])[:5]
    assert {hit["path"] for hit in nearest} == {str(path) for path in pictures[:5]}
    assert best["path"] == str(moved / TWO_CATS)
    assert best["match"] == pytest.approx(judged["match"], abs=1e-3)


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    paint(tmp_path / "red.png", "red")
    done = bt("index", "red.png", "--model", tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1


def test_it_runs_as_a_module_under_its_own_name() -> None:
    command = [sys.executable, "-m", "bridgetower_cli", "search", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("Usage: bt search")


@pytest.fixture
def empty_index(tmp_path: Path) -> Path:
    """What `bt status` can show, without loading a network."""
    from bridgetower.index.writer import IndexWriter
    from tests.fakes import FakeEncoder

    IndexWriter.open(tmp_path / "index", FakeEncoder().fingerprint).close()
    return tmp_path / "index"


@pytest.fixture
def index_of_one(tmp_path: Path) -> Path:
    """An index for `bt search --query-vector`, which loads no network."""
    from bridgetower.index.writer import IndexWriter, NewImage
    from bridgetower.records import File
    from tests.fakes import FakeEncoder

    image = NewImage(bytes(32), 1, 1, None, np.array([1, 0, 0], np.float32))
    with IndexWriter.open(tmp_path / "index", FakeEncoder().fingerprint) as writer:
        writer.commit(images=[image], files=[(File(Path("/a.png"), 1, 1), image.hash)])
        writer.finish()
    return tmp_path / "index"


# Python keeps what stdout did not take, unless it is told to keep nothing at all, and tries again at its very end.
buffering = pytest.mark.parametrize("unbuffered", ["", "1"])
anything = pytest.mark.parametrize(
    "arguments", [["status"], ["--help"], ["search", "--help"], ["--version"]], ids=" ".join
)


@posix
@anything
@buffering
def test_a_reader_that_has_gone_is_no_error(empty_index: Path, arguments: list[str], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "BT_INDEX": str(empty_index), "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(
        [BT, *arguments], stdout=writer, stderr=subprocess.PIPE, env=environment, timeout=60, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@anything
@buffering
def test_a_full_disk_is_an_error_in_one_line(empty_index: Path, arguments: list[str], unbuffered: str) -> None:
    environment = {**os.environ, "BT_INDEX": str(empty_index), "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [BT, *arguments], stdout=full, stderr=subprocess.PIPE, env=environment, timeout=60, check=False
        )
    assert done.returncode == 74
    assert (
        done.stderr.startswith(b"error: the results cannot be written: No space left") and done.stderr.count(b"\n") == 1
    )


# Sends itself a signal in the middle of the import of a module, or of the making of the parser.
STOPPED = """
import os, signal, sys
program, number, where = sys.argv[:3]
sys.argv[:3] = ["bt"]
signal.signal(signal.SIGINT, signal.default_int_handler)

class Stopper:
    def find_spec(self, name, *rest):
        if name == where:
            os.kill(os.getpid(), int(number))

sys.meta_path.insert(0, Stopper())
from bridgetower_cli.app import main
if where == "the parser":
    import typer.main
    typer.main.get_command = lambda app: os.kill(os.getpid(), int(number))
main()
"""


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("where", ["typer", "the parser", "bridgetower_cli.commands.search", "numpy", "torch._C"])
def test_stopping_it_early_is_one_line(empty_index: Path, where: str, number: signal.Signals, code: int) -> None:
    tiny_checkpoint(empty_index / "model")
    program: list[str | Path] = [sys.executable, "-c", STOPPED, str(number.value), where]
    done = subprocess.run(
        [*program, "match", "Makefile", "--text", "a cat", "--model", empty_index / "model"],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"interrupted\n")


@posix
def test_signals_that_the_caller_ignores_stay_ignored() -> None:
    ignoring = STOPPED.replace("signal.default_int_handler", "signal.SIG_IGN")
    command = [sys.executable, "-c", ignoring, str(signal.SIGINT.value), "typer", "--version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@posix
def test_stdout_that_is_closed_is_an_error_in_one_line(empty_index: Path) -> None:
    command: list[str | Path] = ["sh", "-c", '"$0" status --index "$1" >&-', BT, empty_index]
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 74
    assert done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1


@posix
def test_arguments_that_are_no_utf8(tmp_path: Path) -> None:
    done = bt("status", "--index", b"caf\xe9", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (5, b"")
    assert b"caf\\xe9" in done.stderr


# Works in native code, which lets no exception in, for many minutes.
DEAF = """
import hashlib, sys
import bridgetower.index.check
from bridgetower_cli.app import main

def check_index(*arguments, **options):
    print("begun", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

bridgetower.index.check.check_index = check_index
main()
"""


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_native_code_does_not_hold_up_the_end(empty_index: Path, number: signal.Signals, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HEARS + DEAF, "verify", "--index", empty_index],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (code, b"interrupted\n")


@posix
def test_the_end_at_once_gives_a_terminal_its_cursor_back() -> None:
    terminal, inner = os.openpty()
    program = "from bridgetower_cli.interrupts import leave; leave(KeyboardInterrupt())"
    environ = environment() | {"TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environ, stderr=inner, timeout=60, check=False)
    os.close(inner)
    assert (done.returncode, os.read(terminal, 100)) == (130, b"\r\x1b[K\x1b[?25hinterrupted\r\n")
    os.close(terminal)


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_an_index_keeps_what_is_committed(tmp_path: Path, number: signal.Signals, code: int) -> None:
    for shade in range(160):
        paint(tmp_path / "photos" / f"{shade}.png", (shade, 80, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING_INDEX, "index", tmp_path / "photos", "--index", tmp_path / "index", "--quiet"],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        while committed(tmp_path / "index") == 0 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, stdout) == (code, b"")
    assert stderr == b"interrupted: everything committed is kept, the same command goes on from there\n"
    assert 0 < committed(tmp_path / "index") < 160


# Stops itself at the second batch, where an exception would do harm, or would come too late; or ends late by itself.
STOPS_ITSELF = """
import hashlib, os, signal, sys, threading, time
from bridgetower_cli import interrupts

class Stopper:
    def find_spec(self, name, *rest):
        if name == "nowhere":
            os.kill(os.getpid(), signal.SIGINT)

def pause():
    batches.append(1)
    if len(batches) == 2 and where == "import":
        import nowhere
    if len(batches) == 2 and where == "its own last line":
        os.kill(os.getpid(), signal.SIGTERM)
    if len(batches) == 2 and where == "native code":
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

def end_late(stop):
    if threading.current_thread() is threading.main_thread():
        time.sleep(600)
    return code(stop)

code, interrupts.code = interrupts.code, end_late
sys.meta_path.insert(0, Stopper())
where, batches = sys.argv.pop(1), []
"""


@posix
@pytest.mark.parametrize(("where", "code"), [("import", 130), ("native code", 143), ("its own last line", 143)])
def test_an_index_that_ends_at_once_says_what_is_kept(tmp_path: Path, where: str, code: int) -> None:
    for shade in range(40):
        paint(tmp_path / "photos" / f"{shade}.png", (shade, 80, 0))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            STOPS_ITSELF + INDEX,
            where,
            "index",
            tmp_path / "photos",
            "--index",
            tmp_path / "index",
            "--quiet",
        ],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr == b"interrupted: everything committed is kept, the same command goes on from there\n"


STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]

# Ctrl-C reaches it even where the tests run in the background.
PLAIN = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from bridgetower_cli.app import main
main()
"""


def stopped(process: "subprocess.Popen[bytes]", number: signal.Signals) -> int:
    """The exit code of a process that waits for something, and is stopped."""
    try:
        time.sleep(1.5)
        assert process.poll() is None
        process.send_signal(number)
        return process.wait(20)
    finally:
        process.kill()
        process.wait()


@posix
@pytest.mark.parametrize(("number", "code"), STOPS)
@pytest.mark.parametrize("arguments", [["rerank", "a cat"], ["search", "--query-vector", "-"]], ids=" ".join)
def test_stopping_what_waits_for_stdin(
    index_of_one: Path, arguments: list[str], number: signal.Signals, code: int
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PLAIN, *arguments],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "BT_INDEX": str(index_of_one)},
    ) as process:
        assert process.stderr is not None
        assert (stopped(process, number), process.stderr.read()) == (code, b"interrupted\n")


@posix
@pytest.mark.parametrize(("number", "code"), STOPS)
@pytest.mark.parametrize(("stream", "argument"), [("stdout", "--version"), ("stderr", "unknown"), ("stderr", "status")])
def test_stopping_what_waits_for_its_reader(stream: str, argument: str, number: signal.Signals, code: int) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    process = subprocess.Popen(
        [sys.executable, "-c", PLAIN, argument],
        stdout=writer if stream == "stdout" else subprocess.DEVNULL,
        stderr=writer if stream == "stderr" else subprocess.DEVNULL,
        env={**os.environ, "BT_INDEX": "/nowhere"},
    )
    assert stopped(process, number) == code
    os.close(reader)
    os.close(writer)


# Gets SIGTERM in a function that SQLite calls, which makes an error of its own of whatever is raised there.
IN_SQLITE = """
import os, signal, sys
from types import SimpleNamespace
from zlib import crc32
from bridgetower.index.catalog import schema

def stopping(data):
    if sys._getframe(2).f_code.co_name == "upgrade":
        os.kill(os.getpid(), signal.SIGTERM)
    return crc32(data)

schema.zlib = SimpleNamespace(crc32=stopping)
"""


@posix
def test_a_signal_in_the_middle_of_an_upgrade_is_no_damage(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "data" / "index-format-2", tmp_path / "index")
    command = [sys.executable, "-c", IN_SQLITE + PLAIN, "prune", "--index", "index"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (143, b"")
    assert done.stderr.startswith(b"interrupted") and done.stderr.count(b"\n") == 1
    assert bt("prune", "--index", "index", cwd=tmp_path).returncode == 0


@posix
@pytest.mark.parametrize(
    "arguments",
    [
        ["import", "folder"],
        ["import", "--vectors", "pipe", "--paths", "paths.jsonl", "--name", "clip"],
        ["import", "--vectors", "vectors.npy", "--paths", "pipe", "--name", "clip"],
        ["import", "--vectors", "vectors.npy", "--paths", "paths.jsonl", "--name", "clip", "--queries", "pipe"],
        ["search", "--query-vector", "pipe"],
        ["eval", "pipe"],
        ["match", "pipe", "--text", "a cat"],
    ],
    ids=" ".join,
)
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(
    index_of_one: Path, tmp_path: Path, arguments: list[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "index.json")
    np.save(tmp_path / "vectors.npy", np.ones((1, 3)))
    (tmp_path / "paths.jsonl").write_text('"a.png"')
    environment = {**os.environ, "BT_INDEX": str(index_of_one if arguments[0] == "search" else tmp_path / "new")}
    environment["BT_MODEL"] = str(tiny_checkpoint(tmp_path / "model"))
    done = subprocess.run([BT, *arguments], cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (6, b"")
    assert b"not a file but a pipe, socket or device" in done.stderr and done.stderr.count(b"\n") == 1


@posix
def test_ctrl_c_does_not_wait_for_a_picture_that_hangs_and_leaves_no_process(tmp_path: Path) -> None:
    for shade in range(40):
        paint(tmp_path / "photos" / f"{shade:02}.png", (shade, 80, 0))
    (tmp_path / "photos" / "99.jpg").write_text("sleep")
    hostile = (
        f"from bridgetower.pictures import decode_pool\ndecode_pool.COMMAND = {[*HOSTILE, str(tmp_path)]}\npause = int"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", hostile + INDEX, "index", tmp_path / "photos", "--index", tmp_path / "index", "--quiet"],
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    try:
        while committed(tmp_path / "index") < 32 and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.5)  # the last batch waits for the picture that hangs
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, stderr.splitlines()[0][:11]) == (130, b"interrupted")
    assert time.monotonic() - began < 10
    assert committed(tmp_path / "index") == 32
    assert eventually(lambda: not any(runs(pid) for pid in started(tmp_path)), seconds=2)
    assert len(started(tmp_path)) >= 1


def committed(index: Path) -> int:
    with suppress(StoreError), IndexReader.open(index) as store:
        return len(store)
    return 0
