"""Name the table of an index in a database, and tell the index that it was made for from copies of that index."""

import hashlib
import os
import secrets
import socket
from pathlib import Path

from bridgetower.index.catalog.rows import StoreRow


def home_of(directory: Path) -> str:
    """Return which directory on which machine this is: a SHA-256 in hexadecimal."""
    return hashlib.sha256(os.fsencode(f"{socket.gethostname()}\0{os.path.realpath(directory)}")).hexdigest()


def new_row(address: str, directory: Path) -> StoreRow:
    """Return a row for a new table of the index in this directory."""
    token = secrets.randbits(62)
    return StoreRow(address, f"bt_{secrets.token_hex(8)}", home_of(directory), token, token)
