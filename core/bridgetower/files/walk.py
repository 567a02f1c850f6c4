"""Find the picture files in files and folders, in an order that does not change from run to run.

Rules, in full:
- Folders are walked to any depth, names sorted by their bytes. Files without the extension of a picture are passed over
  and counted. Names that begin with a dot are passed over uncounted; with `Rules.hidden` they are walked too, but never
  the `._*` that macOS leaves beside files.
- A `.btignore` file, in any folder of the walk, excludes entries of that folder and of those below it, in the syntax of
  .gitignore. The last pattern that fits decides. A deeper file decides before one above it, and `Rules.exclude`, which
  is anchored at each root, before all files. An excluded folder is not entered, so nothing in it can be included again.
  A .btignore above a root has no effect.
- With `Rules.default_excludes`, the folders of each `DefaultExclude` are not entered. The pictures in them are counted,
  up to 10,000 entries of a kind.
- A path that the caller names is taken as it is: hidden or not, link or not, excluded or not, whatever its extension
  and whatever folder holds it.
- Links are passed over and counted, unless `Rules.follow_symlinks`. Then a folder is listed once, however many links
  lead to it or back to it. Links are followed last, so that a picture appears under its real path where it has one
  here.
- A file whose content is in the cloud only, or for which iCloud has left a stub (`.a.jpg.icloud` for `a.jpg`), has the
  size IN_CLOUD. Nothing is opened but .btignore files.
- Paths are absolute and keep the names of links; any bytes that the file system allows in a name survive.
- The folder of an index is not entered: it holds no pictures of the user.
- An obstacle (a folder that may not be opened, a pipe called `x.jpg`, a file that vanishes, a .btignore that
  cannot be read, is larger than 1 MB or has a line that is no pattern) becomes a Skipped; the walk goes on.

A walk meets millions of files, so it works on bytes and on the entries of folder listings.
"""

import os
import stat
import struct
import zlib
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from bridgetower.errors import InputError
from bridgetower.files.ignore import (
    IGNORE_NAME,
    USUAL_RULES,
    DefaultExclude,
    ExcludedFolders,
    Levels,
    PassedOver,
    Rules,
    excluded_by_mark,
    excluded_by_name,
    excluding_below,
    is_excluded,
    with_own,
)
from bridgetower.files.os_errors import reason_to_skip
from bridgetower.files.regular_files import is_in_cloud, named_by_stub
from bridgetower.records import IN_CLOUD, LARGEST, Skipped, WalkedFile, path_of

# Every format that Pillow reads by itself. Not .eps, .ps, .pdf, .emf, .wmf: they need other programs; nor .mpg, .h5,
# .grib, .bufr: Pillow reads only their headers.
PILLOW_EXTENSIONS = frozenset(
    """
    .apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr .gif .icb .icns .ico .iim
    .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .pbm .pcd .pcx .pfm .pgm .png .pnm .ppm .psd .pxr
    .qoi .ras .rgb .rgba .sgi .tga .tif .tiff .vda .vst .webp .xbm .xpm
    """.split()
)

# Raw formats of cameras.
RAW_EXTENSIONS = frozenset(
    """
    .3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2
    .srf .srw .x3f
    """.split()
)
HEIF_EXTENSIONS = frozenset([".heic", ".heif", ".hif"])
EXTRA_EXTENSIONS = RAW_EXTENSIONS | HEIF_EXTENSIONS | {".jxl"}  # formats that the libraries of extras read

OWN_EXTENSIONS = frozenset({".psb"})  # read by `pictures.extras.psd`, without another library

EXTENSIONS = PILLOW_EXTENSIONS | EXTRA_EXTENSIONS | OWN_EXTENSIONS

_EXTENSIONS = frozenset(extension.encode() for extension in EXTENSIONS)
SIDECAR_EXTENSIONS = (".xmp", ".XMP", ".json")
_SIDECAR_EXTENSIONS = tuple(extension.encode() for extension in SIDECAR_EXTENSIONS)
_NAME = attrgetter("name")


SidecarsOf = Callable[[str, Collection[str]], Sequence[str]]  # (name, names in its folder) -> names of its sidecars


def scan(
    paths: Iterable[Path],
    rules: Rules = USUAL_RULES,
    passed_over: PassedOver | None = None,
    *,
    apart: Path | None = None,
    sidecars_of: SidecarsOf | None = None,
) -> Iterator[WalkedFile | Skipped]:
    """Yield a WalkedFile for each picture file in or at `paths`, once, and a Skipped for each obstacle.

    Entries that are passed over are counted in `passed_over`; `apart`, the folder of the index, is not entered. With
    `sidecars_of`, which returns those of `names` that tell of the picture `name`, each file has a digest of them.
    Raises before the walk begins: InputError where one of `paths` does not exist, or is a pipe, socket or device,
    UsageError where one of `rules.exclude` is no pattern.
    """
    roots = sorted({os.fsencode(os.path.abspath(path)) for path in paths})
    folders = frozenset(root for root in roots if _is_folder(root))
    return _Walk(roots, folders, rules, PassedOver() if passed_over is None else passed_over, apart, sidecars_of).run()


def passes_over(folder: Path, path: Path, rules: Rules, *, is_file: bool) -> bool:
    """Whether the walk of `folder` leaves out the entry at `path` below it, unless the caller names that path."""
    here = os.fsencode(folder)
    levels = excluding_below(here, rules)
    names = [os.fsencode(name) for name in path.relative_to(folder).parts]
    for left, name in reversed([*enumerate(reversed(names))]):
        levels = with_own(here, levels, [])
        parent, here = here, os.path.join(here, name)
        link, is_folder = not rules.follow_symlinks and os.path.islink(here), left > 0 or not is_file
        if link or _is_hidden(name, rules) or is_excluded(here, levels, is_folder=is_folder):
            return True
        if is_folder and rules.default_excludes and _default_exclude(parent, name) is not None:
            return True
    return is_file and _extension(names[-1]) not in _EXTENSIONS


def is_in_walk(folder: Path, place: Path, rules: Rules) -> bool:
    """Return whether the walk of `folder` meets `place`, by exactly this name; also where `place` is above `folder`."""
    if not place.is_relative_to(folder):
        return folder.is_relative_to(place)
    if not all(_is_listed(part) for part in (place, *place.parents) if part != folder and part.is_relative_to(folder)):
        return False
    return place == folder or not passes_over(folder, place, rules, is_file=place.is_file())


def _is_listed(path: Path) -> bool:
    """Return whether the folder of `path` lists its name as it is spelled; some file systems open others, too."""
    with suppress(OSError):
        return path.name in os.listdir(path.parent)
    return False


def _default_exclude(parent: bytes, name: bytes) -> DefaultExclude | None:
    folder = os.path.join(parent, name)
    return excluded_by_name(parent, name) or excluded_by_mark(
        folder, lambda mark: os.path.lexists(os.path.join(folder, mark))
    )


def _is_folder(root: bytes) -> bool:
    try:
        mode = os.stat(root).st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise InputError(f"{os.fsdecode(root)}: not a file but a pipe, socket or device; name pictures or folders")
        return stat.S_ISDIR(mode)
    except (FileNotFoundError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{os.fsdecode(root)}: no such file or folder; check the spelling") from error
    except OSError as error:
        raise InputError(
            f"{os.fsdecode(root)}: cannot be read: {reason_to_skip(error)}; check its permissions"
        ) from error


class _Folder(NamedTuple):
    """A folder to walk, and the patterns that hold in it."""

    path: bytes
    levels: Levels


class _Listing(NamedTuple):
    """A folder that is being walked."""

    folder: _Folder
    entries: Iterator[os.DirEntry[bytes]]  # that are left
    sidecars: Mapping[str, os.DirEntry[bytes]]  # files that may tell of pictures in it, by name


class _Walk:
    """One walk over all roots: the folders listed so far, and the links still to be followed."""

    def __init__(
        self,
        roots: list[bytes],
        folders: frozenset[bytes],
        rules: Rules,
        passed_over: PassedOver,
        apart: Path | None,
        sidecars_of: SidecarsOf | None,
    ) -> None:
        self._roots = [(root, excluding_below(root, rules)) for root in roots]  # raises before the walk begins
        self._folders = folders
        self._rules = rules
        self._passed_over = passed_over
        self._named = {_entry_key(root) for root in roots if root not in folders}
        self._listed: set[tuple[int, int]] = set()  # (device, inode) of each folder
        self._links: list[_Folder] = []
        self._sidecars_of = sidecars_of
        self._beside: tuple[bytes, dict[str, os.DirEntry[bytes]]] | None = None  # of the last file by itself
        if apart is not None:
            with suppress(OSError):
                self._listed.add(_identity(apart))

    def run(self) -> Iterator[WalkedFile | Skipped]:
        pending = set(self._named)
        for root, levels in self._roots:
            if root in self._folders:
                yield from self._walk(_Folder(root, levels))
            elif (key := _entry_key(root)) in pending:  # once, though two paths may name it through links
                pending.remove(key)
                yield self._file(root, partial(os.stat, root), self._sidecars_beside(os.path.dirname(root)))
        for link in self._links:  # grows meanwhile: a link may lead to further links
            yield from self._walk(link)

    def _walk(self, top: _Folder) -> Iterator[WalkedFile | Skipped]:
        follow, extensions = self._rules.follow_symlinks, _EXTENSIONS
        stack: list[_Listing] = []  # folders may be nested deeper than recursion allows
        next_folder: _Folder | None = top
        while next_folder or stack:
            if next_folder:
                troubles: list[Skipped] = []
                stack.append(self._list_with_patterns(next_folder, troubles))
                next_folder = None
                yield from troubles
            (_, levels), entries, sidecars = stack[-1]
            for entry in entries:
                name = entry.name
                is_dotted = name.startswith(b".")
                if is_dotted:
                    if (real := named_by_stub(name)) is not None and self._takes(stack[-1].folder, real):
                        yield WalkedFile(os.path.join(stack[-1].folder.path, real), IN_CLOUD, 0)
                        continue
                    if _is_hidden(name, self._rules):
                        continue
                # Most entries end here, so this path makes few calls.
                if (
                    name[name.rfind(b".") :] in extensions
                    and not (is_dotted or levels)
                    and entry.is_file(follow_symlinks=False)
                ):
                    yield self._file(entry.path, entry.stat, sidecars)
                    continue
                is_link = entry.is_symlink()
                try:
                    is_folder = entry.is_dir()
                except OSError as error:  # a link that may not be followed, or leads back to itself
                    if follow or not is_link:
                        yield Skipped(path_of(entry.path), reason_to_skip(error))
                        continue
                    is_folder = False
                is_other = not is_folder and (extension := _extension(name)) not in extensions
                if levels and is_excluded(entry.path, levels, is_folder=is_folder):
                    if not is_other:
                        self._passed_over.excluded += 1
                elif is_other:
                    self._passed_over.extensions[os.fsdecode(extension)] += 1
                elif is_link and not follow:
                    self._passed_over.links += 1
                elif is_folder and (kind := self._by_name(stack[-1].folder.path, entry)) is not None:
                    self._leave_out(kind, entry.path)
                elif is_folder and is_link:
                    self._links.append(_Folder(entry.path, levels))
                elif is_folder:
                    next_folder = _Folder(entry.path, levels)
                    break
                else:
                    yield self._file(entry.path, entry.stat, sidecars)
            else:
                stack.pop()

    def _takes(self, folder: _Folder, name: bytes) -> bool:
        """Whether a picture that is not there, as iCloud has its content, would be taken if it were."""
        path = os.path.join(folder.path, name)
        if _extension(name) not in _EXTENSIONS or _is_hidden(name, self._rules) or os.path.lexists(path):
            return False
        return not is_excluded(path, folder.levels, is_folder=False)

    def _list_with_patterns(self, folder: _Folder, troubles: list[Skipped]) -> "_Listing":
        """Return the folder with its own patterns, and its entries; obstacles are added to `troubles`."""
        try:
            entries = self._list(folder.path)
        except OSError as error:
            troubles.append(Skipped(path_of(folder.path), f"the folder cannot be read: {reason_to_skip(error)}"))
            return _Listing(folder, iter(()), {})
        if _is_among(entries, IGNORE_NAME):
            folder = _Folder(folder.path, with_own(folder.path, folder.levels, troubles))
        return _Listing(folder, iter(entries), self._sidecars_among(entries))

    def _file(
        self, path: bytes, get_status: Callable[[], os.stat_result], sidecars: Mapping[str, os.DirEntry[bytes]]
    ) -> WalkedFile | Skipped:
        try:
            status = get_status()
        except OSError as error:
            return Skipped(path_of(path), reason_to_skip(error))
        if not stat.S_ISREG(status.st_mode):
            return Skipped(path_of(path), "not a file but a pipe, socket or device")
        if is_in_cloud(status):
            return WalkedFile(path, IN_CLOUD, 0)
        digest = 0
        if sidecars and self._sidecars_of is not None:
            names = self._sidecars_of(os.fsdecode(os.path.basename(path)), sidecars)
            digest = _digest(sidecars[name] for name in names)
        return WalkedFile(path, status.st_size, status.st_mtime_ns, status.st_ino & LARGEST, status.st_ctime_ns, digest)

    def _sidecars_among(self, entries: Iterable[os.DirEntry[bytes]]) -> dict[str, os.DirEntry[bytes]]:
        if self._sidecars_of is None:
            return {}
        return {os.fsdecode(entry.name): entry for entry in entries if entry.name.endswith(_SIDECAR_EXTENSIONS)}

    def _sidecars_beside(self, folder: bytes) -> dict[str, os.DirEntry[bytes]]:
        """List the sidecars in the folder of a file that is walked by itself; the last folder is remembered."""
        if self._beside is None or self._beside[0] != folder:
            self._beside = folder, {}
            with suppress(OSError), os.scandir(folder) as entries:
                self._beside = folder, self._sidecars_among(entries)
        return self._beside[1]

    def _by_name(self, parent: bytes, entry: os.DirEntry[bytes]) -> DefaultExclude | None:
        """Return the kind of a folder that is left out for its name, unless the caller names it."""
        kind = excluded_by_name(parent, entry.name) if self._rules.default_excludes else None
        return kind if entry.path not in self._folders else None

    def _leave_out(self, kind: DefaultExclude, folder: bytes) -> None:
        """Note a folder that is left out by default, and count the pictures in it."""
        left = self._passed_over.by_default.setdefault(kind, ExcludedFolders())
        left.folders.append(folder)
        pending = [folder]
        while pending and left.all_counted:
            with suppress(OSError), os.scandir(pending.pop()) as listing:
                for entry in islice(listing, left.still_counted):
                    left.entries += 1
                    if _is_hidden(entry.name, self._rules):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path not in self._folders:
                            pending.append(entry.path)
                    elif _extension(entry.name) in _EXTENSIONS:
                        left.pictures += 1

    def _list(self, folder: bytes) -> list[os.DirEntry[bytes]]:
        """List a folder, sorted; return nothing if it was listed before, or is left out. Raises OSError."""
        if (identity := _identity(folder)) in self._listed:
            return []
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=_NAME)
        if self._rules.default_excludes and folder not in self._folders:
            kind = excluded_by_mark(folder, partial(_is_among, entries))
            if kind is not None:
                self._leave_out(kind, folder)
                return []
        self._listed.add(identity)
        if self._named:
            real = os.path.realpath(folder)
            entries = [entry for entry in entries if os.path.join(real, entry.name) not in self._named]
        return entries


def _is_among(entries: Sequence[os.DirEntry[bytes]], name: bytes) -> bool:
    """Whether a sorted listing has this name."""
    place = bisect_left(entries, name, key=_NAME)
    return place < len(entries) and entries[place].name == name


def _digest(entries: Iterable[os.DirEntry[bytes]]) -> int:
    """Return the digest of sidecars that docs/index-format.md describes; 0 for none."""
    digest = 0
    for entry in entries:
        with suppress(OSError):  # it has just vanished
            status = entry.stat()
            # A wrong clock may give any time.
            times = (max(-LARGEST, min(at, LARGEST)) for at in (status.st_mtime_ns, status.st_ctime_ns))
            digest = zlib.crc32(entry.name + struct.pack("<qqq", status.st_size, *times), digest)
    return digest


def _identity(folder: bytes | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _is_hidden(name: bytes, rules: Rules) -> bool:
    return name.startswith(b".") and (not rules.hidden or name.startswith(b"._") or name == IGNORE_NAME)


def _extension(name: bytes) -> bytes:
    """Return the extension as `os.path.splitext` does, in lower case."""
    stem, dot, extension = name.rpartition(b".")
    return dot + extension.lower() if stem.lstrip(b".") else b""


def _entry_key(path: bytes) -> bytes:
    """Return one key for all paths of a folder entry. An entry that is a link itself is not resolved."""
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)
