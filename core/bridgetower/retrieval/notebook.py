"""Show results in a notebook: small pictures, each with its scores and its path."""

import base64
import html
import os
from collections.abc import Iterable
from io import BytesIO

from bridgetower.errors import PictureError
from bridgetower.files.content import read
from bridgetower.files.regular_files import is_in_cloud
from bridgetower.pictures.decode import decode
from bridgetower.records import Hit

_SIDE = 160  # pixels
_MOST = 50  # pictures


def as_html(hits: Iterable[Hit], best_match: float | None) -> str:
    """Return an HTML table with embedded pictures. A picture that cannot be read, or is in the cloud only, is shown by
    its path alone."""
    hits = list(hits)
    if not hits:
        return "<p>no match</p>" if best_match is None else f"<p>no match; the best one is {best_match:.3f}</p>"
    rows = "".join(map(_row, hits[:_MOST]))
    if len(hits) > _MOST:
        rows += f"<tr><td colspan=3>and {len(hits) - _MOST} more</td></tr>"
    return f"<table><tr><th>match</th><th>similarity</th><th>picture</th></tr>{rows}</table>"


def _row(hit: Hit) -> str:
    match = _score(hit.match) if hit.verified else "unverified"
    name = html.escape(str(hit.path))
    return f"<tr><td>{match}</td><td>{_score(hit.similarity)}</td><td>{_thumbnail(hit)}<br>{name}</td></tr>"


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _thumbnail(hit: Hit) -> str:
    try:
        if is_in_cloud(os.stat(hit.path)):
            return ""
        image = decode(read(hit.path), hit.path, min_side=_SIDE).image
    except (OSError, ValueError, PictureError):  # ValueError: a NUL in the name
        return ""
    image.thumbnail((_SIDE, _SIDE))
    file = BytesIO()
    image.save(file, "JPEG")
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'
