"""An index that a killed run has left, with a log and a copy, and a disk that alters any of its files at random."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from bridgetower.errors import StoreError
from bridgetower.index.catalog.schema import PAGE_BYTES
from bridgetower.index.catalog.write_ahead_log import FRAME_HEADER_BYTES, HEADER_BYTES
from bridgetower.index.check import check_index, repair_index
from bridgetower.index.reader import IndexReader
from bridgetower.index.writer import IndexWriter
from tests.faults.small import FINGERPRINT, Answer, answer, bring_up_to_date, build, image, photo

MORE = range(300, 303)  # images of the run that was killed, each in a commit of its own, which the copy lacks
BROUGHT_BACK = 0.95  # of the images, without encoding
MANIFEST, COPY, LOG, LOCK = "manifest.sqlite", "manifest.backup.sqlite", "manifest.sqlite-wal", "writer.lock"
_FRAME = FRAME_HEADER_BYTES + PAGE_BYTES


class Damages:
    """Damages copies of one index, each in another way, and looks at what becomes of the answers."""

    def __init__(self, work: Path, seed: int) -> None:
        self._sound, self._directory, self._random = work / "sound", work / "index", random.Random(seed)
        written = work / "written"
        build(written)
        self._before = answer(written)
        self._answers: list[Answer] = []  # after each commit that the log holds
        with IndexWriter.open(written, FINGERPRINT) as writer:
            for number in MORE:
                writer.commit(images=[image(number)], files=[(photo(number), image(number).hash)])
                self._answers.append(answer(written))
            shutil.copytree(written, self._sound)
        (self._sound / f"{MANIFEST}-shm").unlink()
        self._commits = _commits((self._sound / LOG).read_bytes())
        assert len(self._commits) == len(MORE) and answer(self._sound) == self._answers[-1]
        self._images = set(_images(self._sound))
        self.restored, self.least = 0, 1.0  # how often the copy was; of the images, the least share that came back

    def damage(self) -> str:
        """Damage any file a little, and look at what follows; in which way. AssertionError if an answer is wrong."""
        files = sorted(path.relative_to(self._sound) for path in self._sound.rglob("*") if path.is_file())
        name = self._random.choice([*files, Path(MANIFEST), Path(LOG), Path(LOG)])
        ways = (self.flip, self.flip, self.overwrite, self.zero, self.cut)
        return self._damage(name, self._random.choice(ways))

    def strike(self) -> str:
        """The same with a blow to the manifest or to its copy, but not to both."""
        ways = (self.pages, self.pages, self.cut, self.delete)
        return self._damage(Path(self._random.choice([MANIFEST, COPY])), self._random.choice(ways))

    def _damage(self, name: Path, way: Callable[[bytes], bytes | None]) -> str:
        shutil.rmtree(self._directory, ignore_errors=True)
        shutil.copytree(self._sound, self._directory)
        path = self._directory / name
        content = path.read_bytes()
        if (damaged := way(content)) is None:
            path.unlink()
        else:
            path.write_bytes(damaged)
        kind = f"{way.__name__} of {name}"
        expected = self._possible(content, damaged or b"") if path.name == LOG else [self._answers[-1]]
        try:
            said: Answer | str = answer(self._directory)
        except StoreError as error:
            said = str(error)
        assert said in expected or _is_told(said, self._directory), f"{kind}: another answer"
        try:
            repaired = repair_index(self._directory)
        except StoreError as error:
            assert _is_refused(path.name, error), kind  # noqa: PT017
        else:
            assert repaired.left == (), kind
            self.restored += repaired.restored is not None
            share = len(self._images & set(_images(self._directory))) / len(self._images)
            self.least = min(self.least, share)
            assert share >= BROUGHT_BACK, f"{kind}: {share:.1%} came back"
            self._index_again()
            assert list(check_index(self._directory)) == [], kind
            assert answer(self._directory) == self._answers[-1], kind
        return kind

    def _index_again(self) -> None:
        """As `bt index` does it: what is lost is encoded again."""
        bring_up_to_date(self._directory)
        with IndexWriter.open(self._directory, FINGERPRINT) as writer:
            for number in MORE:
                new = [] if writer.catalog.image_id(image(number).hash) else [image(number)]
                writer.commit(images=new, files=[(photo(number), image(number).hash)])
            writer.finish()

    def _possible(self, whole: bytes, damaged: bytes) -> list[Answer]:
        """The answers that a log may give: an older one only where what is missing looks like it was never written."""
        if len(damaged) < len(whole):
            return [self._before, *self._answers]
        altered = [n for n, (a, b) in enumerate(zip(whole, damaged, strict=True)) if a != b] or [len(whole)]
        last_commit = HEADER_BYTES + _FRAME * (self._commits[-2] + 1)
        if altered[0] >= last_commit:
            return self._answers[-2:]
        # Across the border, or in the header of its last frame, it leaves nothing that shows that the commit before the
        # last was one.
        mark = range(last_commit - _FRAME, last_commit - _FRAME + FRAME_HEADER_BYTES)
        unmarked = altered[-1] >= last_commit or any(place in mark for place in altered)
        return self._answers[-3:] if unmarked else self._answers[-1:]

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

    def pages(self, content: bytes) -> bytes:
        """Some of its pages, one after the other or not."""
        altered = bytearray(content)
        starts = range(0, len(content), PAGE_BYTES)
        for start in self._random.sample(starts, self._random.randint(1, min(4, len(starts)))):
            size = len(content[start : start + PAGE_BYTES])
            altered[start : start + size] = self._random.randbytes(size)
        return bytes(altered)

    def cut(self, content: bytes) -> bytes:
        return content[: self._place(content)]

    def delete(self, content: bytes) -> None:
        return None

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
    return name == MANIFEST and "index format" in str(error)  # a newer one, for all that can be told


def _images(directory: Path) -> list[bytes]:
    with IndexReader.open(directory) as store:
        return [hash for hash, _ in store.catalog.contents()]


def _commits(log: bytes) -> list[int]:
    """The frames that end a transaction."""
    starts = range(HEADER_BYTES, len(log), _FRAME)
    return [number for number, at in enumerate(starts) if any(log[at + 4 : at + 8])]
