"""An index that a killed run has left, with a log, and a disk that alters any of its files at random."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from bridgetower.errors import NoIndexError, StoreError
from bridgetower.schema import PAGE_BYTES
from bridgetower.verify import repair, verify
from bridgetower.write_ahead_log import FRAME_HEADER_BYTES, HEADER_BYTES
from bridgetower.writer import Writer
from tests.faults.small import FINGERPRINT, Answer, answer, bring_up_to_date, build, image, photo

MORE = range(300, 312)  # images of the run that was killed, each in a commit of its own
MANIFEST, LOG, LOCK = "manifest.sqlite", "manifest.sqlite-wal", "writer.lock"
_FRAME = FRAME_HEADER_BYTES + PAGE_BYTES


class Damages:
    """Damages copies of one index, each in another way, and looks at what becomes of the answers."""

    def __init__(self, work: Path, seed: int) -> None:
        self._sound, self._directory, self._random = work / "sound", work / "index", random.Random(seed)
        written = work / "written"
        build(written)
        self._before = answer(written)
        self._answers: list[Answer] = []  # after each commit that the log holds
        with Writer.open(written, FINGERPRINT) as writer:
            for number in MORE:
                writer.commit(images=[image(number)], files=[(photo(number), image(number).hash)])
                self._answers.append(answer(written))
            shutil.copytree(written, self._sound)
        (self._sound / f"{MANIFEST}-shm").unlink()
        self._commits = _commits((self._sound / LOG).read_bytes())
        assert len(self._commits) == len(MORE) and answer(self._sound) == self._answers[-1]
        self.ways: tuple[Callable[[bytes], bytes], ...] = (self.flip, self.flip, self.overwrite, self.zero, self.cut)

    def damage(self) -> str:
        """Damage one file and look at all that follows; in which way. AssertionError if an answer is wrong."""
        shutil.rmtree(self._directory, ignore_errors=True)
        shutil.copytree(self._sound, self._directory)
        files = sorted(path for path in self._directory.rglob("*") if path.is_file())
        path = self._random.choice([*files, self._directory / MANIFEST, self._directory / LOG, self._directory / LOG])
        content = path.read_bytes()
        (way,) = self._random.choices(self.ways)
        path.write_bytes(damaged := way(content))
        kind = f"{way.__name__} of {path.relative_to(self._directory)}"
        expected = self._possible(content, damaged) if path.name == LOG else [self._answers[-1]]
        try:
            said: Answer | str = answer(self._directory)
        except StoreError as error:
            said = str(error)
        assert said in expected or _is_told(said, self._directory), f"{kind}: another answer"
        try:
            left: object = repair(self._directory).left
        except StoreError as error:
            assert _is_refused(path.name, error), kind  # noqa: PT017
        else:
            assert left == (), kind
            bring_up_to_date(self._directory)
            assert list(verify(self._directory)) == [], kind
        return kind

    def _possible(self, whole: bytes, damaged: bytes) -> list[Answer]:
        """The answers that a log may give: an older one only where what is missing looks like it was never written."""
        if len(damaged) < len(whole):
            return [self._before, *self._answers]
        first = next((n for n, (a, b) in enumerate(zip(whole, damaged, strict=True)) if a != b), len(whole))
        in_last_commit = first >= HEADER_BYTES + _FRAME * (self._commits[-2] + 1)
        return self._answers[-2:] if in_last_commit else self._answers[-1:]

    # The ways; each gives the content of a file after it

    def flip(self, content: bytes) -> bytes:
        flipped = bytearray(content)
        flipped[self._place(content)] ^= 1 << self._random.randrange(8)
        return bytes(flipped)

    def overwrite(self, content: bytes) -> bytes:
        place = self._place(content)
        return content[:place] + self._random.randbytes(len(content[place : place + 100])) + content[place + 100 :]

    def zero(self, content: bytes) -> bytes:
        place = self._place(content) // 512 * 512
        return content[:place] + bytes(len(content[place : place + 512])) + content[place + 512 :]

    def cut(self, content: bytes) -> bytes:
        return content[: self._place(content)]

    def _place(self, content: bytes) -> int:
        """Mostly where something is written."""
        written = [place for place, byte in enumerate(content) if byte]
        return self._random.choice(written) if self._random.random() < 0.9 else self._random.randrange(len(content))


def _is_told(said: Answer | str, directory: Path) -> bool:
    return isinstance(said, str) and "\n" not in said and str(directory) in said


def _is_refused(name: str, error: StoreError) -> bool:
    """Whether a repair may end with this error where the file of this name is damaged."""
    if name == LOCK:  # it cannot be told from a file of another program any more
        return "left as it is" in str(error)
    known = isinstance(error, NoIndexError) or "saved" in str(error) or "log is there" in str(error)
    return name in (MANIFEST, LOG) and known


def _commits(log: bytes) -> list[int]:
    """The frames that end a transaction."""
    starts = range(HEADER_BYTES, len(log), _FRAME)
    return [number for number, at in enumerate(starts) if any(log[at + 4 : at + 8])]
