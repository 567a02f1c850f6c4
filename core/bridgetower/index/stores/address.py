"""The address of a store: `postgresql://USER@HOST:PORT/DATABASE` or `milvus://USER@HOST:PORT/DATABASE`."""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from bridgetower.errors import UsageError

POSTGRES, MILVUS = "postgresql", "milvus"
FAISS = "faiss"  # the name of vector files beside the manifest
_PORTS = {POSTGRES: 5432, MILVUS: 19530}
_SPELLINGS = {"postgresql": POSTGRES, "postgres": POSTGRES, "milvus": MILVUS}
_SECRETS = ("password", "passwd", "pwd", "token", "sslpassword", "secret", "api_key")
# Parameters that are no secret and change no result; drivers know many more, also the names of files to read or write.
_PARAMETERS = {POSTGRES: ("sslmode", "sslrootcert", "host"), MILVUS: ("secure",)}

_FORMS = "give faiss, postgresql://USER@HOST/DATABASE or milvus://HOST:PORT"
_NO_PASSWORD = (
    "a password in a URL ends up in lists of processes and in histories: put it into a file (--store-password-file) or "
    "into BT_STORE_PASSWORD"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is, without a password."""

    scheme: str  # POSTGRES or MILVUS
    host: str
    port: int
    user: str | None
    database: str | None
    parameters: tuple[tuple[str, str], ...] = ()  # of the driver

    @classmethod
    def of(cls, url: str) -> Self:
        """Read a URL. Raises UsageError for one that is no address of a store, or that holds a password."""
        named, _, rest = url.strip().partition("://")
        scheme = _SPELLINGS.get(named)
        if scheme is None or not rest:
            raise UsageError(f"--store: this is no address of a store: {_FORMS}")
        authority = re.split("[/?#]", rest, maxsplit=1)[0]
        # A password may have any of these letters, unescaped: nothing of such a URL is shown.
        if "@" in rest[len(authority) :] or ":" in authority.rpartition("@")[0]:
            raise UsageError(f"--store {scheme}://: {_NO_PASSWORD}")
        try:
            parts = urlsplit(f"{scheme}://{rest}")
            port = parts.port
        except ValueError as error:
            raise UsageError(f"--store {scheme}://: its host or port is none: {_FORMS}") from error
        parameters = tuple(parse_qsl(parts.query, keep_blank_values=True))
        if any(name.lower() in _SECRETS for name, _ in parameters):
            raise UsageError(f"--store {scheme}://: {_NO_PASSWORD}")
        for name, _ in parameters:
            if name not in _PARAMETERS[scheme]:
                raise UsageError(f"--store {scheme}://: ?{name}= is none of {', '.join(_PARAMETERS[scheme])}")
        if parts.fragment:
            raise UsageError(f"--store {scheme}://: a URL of a store has no #")
        database = unquote(parts.path.removeprefix("/")) or None
        if database is not None and "/" in database:
            raise UsageError(f"--store {scheme}://: a name of a database has no /: {_FORMS}")
        user = None if parts.username is None else unquote(parts.username) or None
        return cls(scheme, parts.hostname or "localhost", port or _PORTS[scheme], user, database, parameters)

    def __str__(self) -> str:
        """The URL, which `of` reads again."""
        user = "" if self.user is None else quote(self.user, safe="") + "@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        database = "" if self.database is None else "/" + quote(self.database, safe="")
        query = "" if not self.parameters else "?" + urlencode(self.parameters)
        return f"{self.scheme}://{user}{host}:{self.port}{database}{query}"


def address_of(store: str) -> str | None:
    """Return the address that `--store` names, in its one spelling; None for vector files. Raises UsageError."""
    return None if store.strip().lower() == FAISS else str(Address.of(store))
