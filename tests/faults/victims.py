"""Processes to be killed: `bt` on a model that sees nothing but colour.

A process that has imported everything forks one for each command: what is killed is then at work, and not importing.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]


class Victims:
    """Starts `bt` with one index after the other, and kills it or lets it end."""

    def __init__(self, *, many: int = 50_000) -> None:
        """More images than `many` are searched by lists."""
        paths = os.pathsep.join([str(ROOT / "core"), str(ROOT)])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "BT_MODEL": "fake", "MANY": str(many)}
        self._driver = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._answer() == "ready"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._driver.communicate()  # at the end of its input it ends

    def _answer(self) -> str:
        assert self._driver.stdout is not None
        return self._driver.stdout.readline().strip()

    def start(self, *arguments: str | Path) -> int:
        """Start `bt` with these arguments; the id of its process."""
        assert self._driver.stdin is not None
        self._driver.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        self._driver.stdin.flush()
        return int(self._answer())

    def end(self) -> int:
        """Wait until it has ended; its exit code, or the number of the signal that killed it below zero."""
        assert self._driver.stdin is not None
        self._driver.stdin.write("\n")
        self._driver.stdin.flush()
        return int(self._answer())

    def run(self, *arguments: str | Path) -> float:
        """Let `bt` with these arguments end well; how many seconds it took."""
        began = time.perf_counter()
        self.start(*arguments)
        code = self.end()
        assert code == 0, f"bt {arguments} ended with {code}"
        return time.perf_counter() - began

    def kill(self, *arguments: str | Path, after: float, by: int = signal.SIGKILL) -> int:
        """Start it, and send it a signal after so many seconds; what `end` gives, 0 where it had ended before."""
        process = self.start(*arguments)
        time.sleep(after)
        os.kill(process, by)  # it stays until `end` has asked for it
        return self.end()


def _say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def serve() -> None:
    """Fork for each line of arguments on stdin; answer with the id of the process, and when asked, with its code."""
    import bridgetower.checkpoints.find
    import bridgetower.encoders.torch_encoder
    import bridgetower.index.check
    import bridgetower.index.maintenance
    import bridgetower.index.vectors.catalog_vectors
    import bridgetower.index.vectors.faiss.store
    import bridgetower.index.writer
    import bridgetower_cli.parser  # noqa: F401
    from bridgetower_cli import interrupts
    from bridgetower_cli.app import main
    from tests.fakes import FakeEncoder

    find: Any = bridgetower.checkpoints.find
    encoder: Any = bridgetower.encoders.torch_encoder
    writer: Any = bridgetower.index.writer
    faiss_store: Any = bridgetower.index.vectors.faiss.store
    fake = FakeEncoder()
    checkpoint = SimpleNamespace(name="fake", heads=fake.heads, preprocessing=fake.preprocessing)
    checkpoint.with_preprocessing = lambda name: checkpoint
    find.resolve = lambda name, **options: checkpoint
    encoder.fingerprint_of = lambda checkpoint, precision: fake.fingerprint
    encoder.TorchEncoder = lambda checkpoint, runtime, **options: fake
    faiss_store._UNCOVERED_MIN = 20  # publish often, to be killed there too
    writer._PRUNED_AT_ONCE = 16
    truth: Any = bridgetower.index.vectors.catalog_vectors
    truth.EXACT_MOST = int(os.environ["MANY"])
    caught, install = {signal.SIGINT, signal.SIGTERM}, interrupts.install

    def install_and_unblock() -> None:
        install()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, caught)

    interrupts.install = install_and_unblock
    _say("ready")
    while line := sys.stdin.readline():
        signal.pthread_sigmask(signal.SIG_BLOCK, caught)  # until `bt` handles them, however late it comes to that
        process = os.fork()
        if not process:
            sys.argv = ["bt", *json.loads(line)]
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
            main()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, caught)
        _say(process)
        sys.stdin.readline()  # until then the number belongs to this process, also when it has ended
        _say(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))


if __name__ == "__main__":
    serve()
