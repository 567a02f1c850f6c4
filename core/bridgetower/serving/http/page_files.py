"""Read the files of the page for people: those of `page/`, and no others."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = "/"  # the path of the document of the page

_FOLDER = Path(__file__).with_name("page")
_INDEX = "index.html"
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class PageFile:
    """The content of a file, and how it is sent."""

    content: bytes
    media_type: str
    headers: dict[str, str]


def read_page() -> dict[str, PageFile]:
    """Return the files of the page by the paths of their URLs. They hold nothing of the index."""
    files = {f"/page/{file.name}": _read(file) for file in sorted(_FOLDER.iterdir()) if file.suffix in _TYPES}
    return {DOCUMENT: files[f"/page/{_INDEX}"], **files}


def _read(file: Path) -> PageFile:
    content = file.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}  # a browser asks each time whether it has changed
    if file.name == _INDEX:
        headers["Content-Security-Policy"] = _POLICY
    return PageFile(content, _TYPES[file.suffix], headers)
