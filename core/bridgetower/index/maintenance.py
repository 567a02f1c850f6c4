"""Looking after an index: letting go of what it need not keep.

forget   takes folders and files out of the index, wherever they are on the disk
prune    drops files that are gone from the disk, removes the images that no file leads to, and gives the space back
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from bridgetower.errors import InputError
from bridgetower.index.catalog.reader import Catalog
from bridgetower.index.feature_cache import FeatureCache
from bridgetower.index.reader import IndexReader
from bridgetower.index.roots import is_away
from bridgetower.index.writer import IndexWriter
from bridgetower.records import OnProgress, quiet

_NAMES = 10_000  # that are compared with one that is not known


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What `forget` took out of the index."""

    path: Path
    files: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `prune` removed, or would remove."""

    files: int  # that are gone from the disk
    images: int  # that no file leads to
    features: int  # pictures of which something was kept for searches
    bytes: int  # that the index takes less of the disk; an estimate where nothing was removed
    absent: tuple[Path, ...]  # folders in which nothing was met though the index has files there: all kept
    note: str | None  # why space was not given back, or the manifest not copied again


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """What was taken out of the index, or would be."""

    forgotten: tuple[Forgotten, ...]
    orphans: int  # images that have no file after it; their vectors are kept until `prune`
    note: str | None = None  # why the manifest was not copied again


def forget(writer: IndexWriter, paths: Iterable[Path]) -> ForgetReport:
    """Drop from the index what lies at and below each of `paths`, whether it exists or not: all or, on any error, none.

    The images stay, as orphans, until `prune`. Raises InputError for a path that the index does not know; StoreError.
    """
    known = _known_paths(writer.catalog, paths)
    forgotten = tuple(map(Forgotten, known, writer.forget(*known)))
    return ForgetReport(forgotten, writer.catalog.count_orphans(), writer.back_up_if_behind())


def would_forget(reader: IndexReader, paths: Iterable[Path]) -> ForgetReport:
    """What `forget` would do now. Changes nothing; raises the same."""
    known = _known_paths(reader.catalog, paths)
    counts, without = reader.catalog.count_under_each(known)
    return ForgetReport(tuple(map(Forgotten, known, counts)), reader.catalog.counts().orphans + without)


def _known_paths(catalog: Catalog, paths: Iterable[Path]) -> list[Path]:
    """Each of `paths` once, absolute. Raises InputError for one that the index does not know."""
    known = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))
    for path in known:
        if not catalog.knows(path):
            raise InputError(f"{path}: the index knows nothing there{_nearest(catalog, path)}")
    return known


def _nearest(catalog: Catalog, path: Path) -> str:
    """What could have been meant."""
    folder = next((above for above in path.parents if catalog.knows(above)), None)
    names = [] if folder is None else catalog.names_in(folder, _NAMES)
    wrong = path.name if folder is None else path.relative_to(folder).parts[0]
    alike = [name for name in names if name.startswith(wrong)] or get_close_matches(wrong, names)
    near = [str(folder / name) for name in alike[:3]] if folder else []
    roots = [str(root) for root, _ in catalog.roots()]
    near += [root for root in roots if get_close_matches(path.name, [os.path.basename(root)]) and root not in near]
    if near:
        return f"; did you mean {' or '.join(near[:3])}?"
    return f"; its folders are {', '.join(roots[:3])}{' ...' if roots[3:] else ''}" if roots else "; it has no folders"


def would_prune(reader: IndexReader, *, on_progress: OnProgress = quiet) -> Pruned:
    """What `prune` would do now. Changes nothing."""
    catalog = reader.catalog
    gone, absent = _gone(catalog, on_progress)
    lost = {hash for hash, orphan in catalog.contents() if orphan} | set(catalog.orphaned_by(gone))
    orphans = len(lost)
    features = [name for name in reader.features().names() if _content(name) in lost or not _known(catalog, name)]
    counts = catalog.counts()
    share = orphans / max(1, counts.images + counts.orphans)
    freed = round(share * catalog.space().used) + sum(map(reader.features().size, features))
    return Pruned(len(gone), orphans, len(features), freed, absent, None)


def prune(writer: IndexWriter, *, on_progress: OnProgress = quiet) -> Pruned:
    """Drop files that are gone, remove images without a file and what is kept of them, give the space back.

    A root that `is_away` keeps everything: its disk may not be mounted. Raises StoreError. May be
    interrupted at any instant; what was removed until then is.
    """
    before = writer.bytes_on_disk()
    gone, absent = _gone(writer.catalog, on_progress)
    if gone:
        writer.drop(gone)
    images = sum(writer.prune())
    features = _prune_features(writer.features(), writer.catalog)
    writer.tidy()
    notes = [writer.compact()]
    writer.remove_strays()
    freed = max(0, before - writer.bytes_on_disk())
    notes.append(writer.back_up_if_behind())
    return Pruned(len(gone), images, features, freed, absent, "; ".join(filter(None, notes)) or None)


def _gone(catalog: Catalog, on_progress: OnProgress) -> tuple[list[Path], tuple[Path, ...]]:
    """The files that are gone from the disk, and the folders whose files are kept because nothing is there.

    A file is judged by the innermost root around it, as when folders are indexed; one that was named by itself, by the
    folder that it was in. What cannot be looked at is not gone.
    """
    roots = {root for root, _ in catalog.roots()}
    counts = catalog.counts()
    total = counts.files + counts.skipped
    gone: dict[Path, list[Path]] = {}
    met: dict[Path, Path] = {}  # by root, a file that is there
    for done, path in enumerate(catalog.files(), 1):
        root = next((above for above in path.parents if above in roots), path.parent)
        if path in roots:
            root = path.parent
        if _is_gone(path):
            gone.setdefault(root, []).append(path)
        else:
            met[root] = path
        on_progress(done, total)
    # Asked last, also of what was met: a disk may have gone away in the middle.
    away = {root for root in gone if (root not in met or _is_gone(met[root])) and is_away(root)}
    return [path for root, paths in gone.items() if root not in away for path in paths], tuple(sorted(away))


def _is_gone(path: Path) -> bool:
    """Whether there is surely no such file any more: not where a link on the way leads nowhere, nor on any error."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        return False
    else:
        return False
    for above in path.parents:
        try:
            return not stat.S_ISLNK(os.lstat(above).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return False
    return False


def _prune_features(features: FeatureCache, catalog: Catalog) -> int:
    """Remove what is kept of pictures that the index does not have; how many they were."""
    unknown = [name for name in features.names() if not _known(catalog, name)]
    for name in unknown:
        features.remove(name)
    return len(unknown)


def _known(catalog: Catalog, name: str) -> bool:
    return catalog.image_id(_content(name)) is not None


def _content(name: str) -> bytes:
    """The hash of the content that something is kept of under `name`, which is of the form that the cache gives."""
    return bytes.fromhex(name.partition("-")[0])
