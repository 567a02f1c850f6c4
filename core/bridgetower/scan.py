"""Files and folders -> the picture files in them, in an order that does not change from run to run.

Rules, in full:
- Folders are walked to any depth, names sorted by code point. Names that begin with a dot (also the `._*` that macOS
  leaves beside files) are passed over in silence. What has no picture's extension is passed over and counted.
- What is named itself is taken as it is: hidden or not, whatever its extension.
- Links to files and to folders are followed. A folder is listed once, however many links lead to it or back to it;
  the links' turn comes after everything else, so that a picture appears under its real path where it has one here.
- Paths are absolute and keep the names of links; any bytes that the file system allows in a name survive.
- What stands in the way (a folder that may not be opened, a link to nothing, a pipe called `x.jpg`, a file that
  vanishes) becomes a Skipped; the walk goes on.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from bridgetower.errors import InputError
from bridgetower.records import Photo, Skipped

# Every format that Pillow reads by itself. Not .eps, .ps, .pdf, .emf, .wmf: they need other programs; nor those of
# which Pillow knows the header only (.mpg, .h5, .grib, .bufr).
EXTENSIONS = frozenset(
    """
    .apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr .gif .icb .icns .ico .iim
    .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .pbm .pcd .pcx .pfm .pgm .png .pnm .ppm .psd .pxr
    .qoi .ras .rgb .rgba .sgi .tga .tif .tiff .vda .vst .webp .xbm .xpm
    """.split()
)

# Pictures that people have and expect to find, but of kinds that Pillow does not read: of phones, of cameras ("raw").
UNREAD_EXTENSIONS = frozenset(
    """
    .heic .heif .hif .jxl
    .3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2
    .srf .srw .x3f
    """.split()
)


def scan(paths: Iterable[Path], *, ignored: Counter[str] | None = None) -> Iterator[Photo | Skipped]:
    """Yield a Photo for each picture file in or at `paths`, once, and a Skipped for each that cannot be had.

    What is passed over in folders because it has no picture's extension is counted in `ignored`, by its extension in
    lower case. Raises InputError at once, before anything is walked, where one of `paths` does not exist.
    """
    roots = sorted({Path(os.path.abspath(path)) for path in paths})
    folders = [root for root in roots if _is_folder(root)]
    return _Walk(roots, frozenset(folders), Counter() if ignored is None else ignored).run()


def passes_over(folder: Path, path: Path, *, is_file: bool) -> bool:
    """Whether the walk of `folder` leaves out what lies below it at `path`, so that it must be named to be met."""
    hidden = any(name.startswith(".") for name in path.relative_to(folder).parts)
    return hidden or (is_file and path.suffix.lower() not in EXTENSIONS)


def _is_folder(root: Path) -> bool:
    try:
        return stat.S_ISDIR(root.stat().st_mode)
    except (FileNotFoundError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{root}: no such file or folder; check the spelling") from error
    except OSError as error:
        raise InputError(f"{root}: cannot be read: {error.strerror}; check its permissions") from error


class _Walk:
    """One walk over all roots: what has been listed, and the links that are still to be followed."""

    def __init__(self, roots: list[Path], folders: frozenset[Path], ignored: Counter[str]) -> None:
        self._roots = roots
        self._folders = folders
        self._ignored = ignored
        self._named = {_entry_key(str(root)) for root in roots if root not in folders}
        self._listed: set[tuple[int, int]] = set()  # (device, inode) of each folder
        self._links: list[str] = []  # to folders

    def run(self) -> Iterator[Photo | Skipped]:
        pending = set(self._named)
        for root in self._roots:
            if root in self._folders:
                yield from self._walk(str(root))
            elif (key := _entry_key(str(root))) in pending:  # not named twice, through a link
                pending.remove(key)
                yield _photo(str(root))
        for link in self._links:  # grows while it is walked: a link may lead to further links
            yield from self._walk(link)

    def _walk(self, folder: str) -> Iterator[Photo | Skipped]:
        # A stack, not recursion: folders may be nested deeper than Python's calls.
        stack: list[os.DirEntry[str] | Skipped] = self._list(folder)
        while stack:
            entry = stack.pop()
            if isinstance(entry, Skipped):
                yield entry
                continue
            try:
                is_folder = entry.is_dir()
            except OSError as error:  # a link that may not be followed, or leads back to itself
                yield Skipped(Path(entry.path), _reason(error))
                continue
            if is_folder and entry.is_symlink():
                self._links.append(entry.path)
            elif is_folder:
                stack.extend(self._list(entry.path))
            elif (extension := os.path.splitext(entry.name)[1].lower()) in EXTENSIONS:
                yield _photo(entry.path)
            else:
                self._ignored[extension] += 1

    def _list(self, folder: str) -> list[os.DirEntry[str] | Skipped]:
        """The entries of a folder that has not been listed, the last one first."""
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in self._listed:
                return []
            self._listed.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            return [Skipped(Path(folder), f"the folder cannot be read: {_reason(error)}")]
        if self._named:
            real = os.path.realpath(folder)
            visible = [entry for entry in visible if os.path.join(real, entry.name) not in self._named]
        return [*sorted(visible, key=lambda entry: entry.name, reverse=True)]


def _photo(path: str) -> Photo | Skipped:
    try:
        status = os.stat(path)
    except OSError as error:
        return Skipped(Path(path), _reason(error))
    if not stat.S_ISREG(status.st_mode):
        return Skipped(Path(path), "not a file but a pipe, socket or device")
    return Photo(Path(path), status.st_size, status.st_mtime_ns)


def _entry_key(path: str) -> str:
    """The same for all names of one folder entry; links in the place of the entry itself are kept apart."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _reason(error: OSError) -> str:
    if not isinstance(error, FileNotFoundError):
        return error.strerror or str(error)
    linked = error.filename is not None and os.path.islink(error.filename)
    return "a link to nothing" if linked else "vanished during the walk"
