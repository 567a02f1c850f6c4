"""The address of a store: `postgresql://USER@HOST:PORT/DATABASE` or `milvus://USER@HOST:PORT/DATABASE`."""

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
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError as error:
            raise UsageError(f"--store {_shown(url)}: {error}") from error
        scheme = _SPELLINGS.get(parts.scheme)
        if scheme is None:
            raise UsageError(
                f"--store {_shown(url)}: give faiss, postgresql://USER@HOST/DATABASE or milvus://HOST:PORT"
            )
        parameters = tuple(parse_qsl(parts.query, keep_blank_values=True))
        if parts.password is not None or any(name.lower() in _SECRETS for name, _ in parameters):
            raise UsageError(
                f"--store {scheme}://{parts.hostname or ''}: a password in a URL ends up in lists of processes and in "
                "histories: put it into a file (--store-password-file) or into BT_STORE_PASSWORD"
            )
        for name, _ in parameters:
            if name not in _PARAMETERS[scheme]:
                raise UsageError(f"--store {_shown(url)}: {name} is none of {', '.join(_PARAMETERS[scheme])}")
        if parts.fragment:
            raise UsageError(f"--store {_shown(url)}: a URL of a store has no #")
        database = unquote(parts.path.removeprefix("/")) or None
        if database is not None and "/" in database:
            raise UsageError(f"--store {_shown(url)}: {database} is no name of a database")
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
    return None if store == FAISS else str(Address.of(store))


def _shown(url: str) -> str:
    """Return a URL that cannot be read, without what may be a password in it."""
    before, at, after = url.strip().rpartition("@")
    scheme, colon, _ = before.partition("://")
    shown = f"{scheme}{colon}...@{after}" if at else after
    return shown.partition("?")[0]
