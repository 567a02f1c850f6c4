"""Where a server listens, and who may ask it. Needs no library of the extra `serve`."""

import errno
import ipaddress
import os
import re
import socket
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from bridgetower.errors import UsageError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7860
_NEXT_PORTS = 20  # that are tried where the default one is taken
MOST_HEAD = 32_768  # bytes of a request without its body
_BACKLOG = 512  # connections that wait to be accepted

MODULES = ("fastapi", "prometheus_client", "python_multipart", "uvicorn")  # of the extra

HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
TOKEN = re.compile(r"[!-~]{16,512}")


@dataclass(frozen=True, slots=True)
class Config:
    """Where the server listens and who may ask. Raises UsageError."""

    host: str = DEFAULT_HOST  # an address or a name
    port: int | None = None  # 0: any free one; None: DEFAULT_PORT, or the next one that is free
    token: str | None = field(default=None, repr=False)  # wanted of each request; needed on any bind but loopback
    names: tuple[str, ...] = ()  # further names of the server, without a port
    allow_origins: tuple[str, ...] = ()  # pages of other sites that may ask, as "https://photos.example"
    thumbnails: Path | None = None  # a folder for small pictures; None for the one in the user's cache
    page: bool = True  # whether people get a page at `/`

    def __post_init__(self) -> None:
        if self.token is None and not self.is_loopback:
            raise UsageError(
                f"{self.host} can be reached from other machines: give a token with --token-file, "
                f"or bind to {DEFAULT_HOST}"
            )
        if self.token is not None and not TOKEN.fullmatch(self.token):
            raise UsageError("a token is 16 to 512 letters, digits and signs without spaces")
        for name in self.names:
            if not (found := HOST.fullmatch(name.lower())) or found[2]:
                raise UsageError(f"{name!a}: the name of a server is wanted, without a scheme and a port")
        for origin in self.allow_origins:
            if not _ORIGIN.fullmatch(origin):
                raise UsageError(f"{origin!a}: an origin is wanted, as https://photos.example")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def own_names(self) -> frozenset[str]:
        """The names that a Host may be, in lower case and without a port."""
        return frozenset({*_LOOPBACK, as_host(self.host), *(name.lower() for name in self.names)})


def as_host(address: str) -> str:
    """Return an address or a name as a Host has it."""
    return f"[{address}]".lower() if ":" in address else address.lower()


def is_installed() -> bool:
    """Return whether the libraries of the extra `serve` can be found; they are not imported."""
    return all(find_spec(module) is not None for module in MODULES)


def bind(config: Config) -> tuple[socket.socket, str]:
    """Return a socket that listens where the config says, and the URL of the server.

    Raises UsageError if the host is none of this machine, its name leads to other machines, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(config.host, 0, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"{config.host}: no machine of this name is known: check the name, or give an address"
        ) from error
    host = str(address[0])
    if config.token is None and not ipaddress.ip_address(host).is_loopback:
        raise UsageError(
            f"{config.host} leads to {host}, which other machines can reach: give a token with --token-file"
        )
    last = DEFAULT_PORT + _NEXT_PORTS - 1 if config.port is None else config.port
    port = DEFAULT_PORT if config.port is None else config.port
    while True:
        try:
            listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            if port < last and error.errno == errno.EADDRINUSE:
                port += 1
                continue
            why = os.strerror(error.errno).lower() if error.errno else str(error)  # `create_server` adds the address
            raise UsageError(
                f"port {port} of {config.host} cannot be had: {why}; --port takes another, and 0 any free one"
            ) from error
        return listening, f"http://{as_host(config.host)}:{listening.getsockname()[1]}"
