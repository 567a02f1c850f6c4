"""Copy, link and open the files of hits, and say on stderr what was done."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bridgetower.records import Skipped
from bridgetower_cli import render
from bridgetower_cli.libraries import library
from bridgetower_cli.progress import Meter
from bridgetower_cli.settings import Settings
from bridgetower_cli.showing.options import Showing


def place(files: Sequence[Path], showing: Showing) -> bool:
    """Copy or link files into the folder that the user names; return whether all are there. Raises OutputError."""
    from bridgetower import place_files

    folder, links, would = showing.folder, showing.link_to is not None, showing.dry_run
    if folder is None:
        return True
    counts: Counter[str] = Counter()
    skipped: list[Skipped] = []
    planned: list[str] = []
    verb = "link" if links else "copy"
    try:
        with Meter("linking" if links else "copying", "pictures") as meter:
            for placed in place_files(files, folder, links=links, dry_run=would):
                if placed.target is None:
                    skipped.append(Skipped(placed.file, str(placed.reason)))
                else:
                    counts["new" if placed.is_new else "there"] += 1
                if would and placed.is_new and placed.target is not None:
                    planned.append(f"would {verb} {render.short(placed.file)} to {render.short(placed.target)}")
                meter.update(counts.total() + len(skipped), len(files))
    finally:
        for line in planned:
            render.say(line)
        render.skipped(skipped)
        done = f"would {verb}" if would else "linked" if links else "copied"
        there = f", {counts['there']} there already" if counts["there"] else ""
        left = f", {len(skipped)} skipped" if skipped else ""
        if counts or skipped:  # else the error says all
            render.say(f"{done} {render.counted(counts['new'], 'picture')} to {render.short(folder)}{there}{left}")
    return not skipped


def note_indexed(showing: Showing, settings: Settings) -> None:
    """Say if copies go into a folder that is indexed, where the next `bt index` finds them; it passes over links."""
    if showing.copy_to is None:
        return
    with library(settings) as indexed:
        roots = [folder.path for folder in indexed.folders()]
    folder = Path(os.path.realpath(showing.copy_to))
    root = next((root for root in roots if folder.is_relative_to(root)), None)
    if root is not None:
        render.say(
            f"note: {render.short(showing.copy_to)} lies in {render.short(root)}, which is indexed: the next "
            "`bt index` finds the copies there, too"
        )


def view(files: Sequence[Path]) -> bool:
    """Open files in the viewer of the desktop; return whether all were opened."""
    from bridgetower.serving.desktop import view

    skipped = view([Path(os.path.abspath(file)) for file in files])
    render.skipped(skipped)
    return not skipped
