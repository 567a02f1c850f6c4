"""How to add an extra of the distribution to this installation."""

import os
import sys
from functools import cache
from pathlib import Path

DISTRIBUTION = "bridgetower-cli"


@cache
def how_to_install(extra: str) -> str:
    """Return the command that adds an extra to this installation.

    pip notes in direct_url.json from which folder or file a distribution came; there is none where it came from an
    index of packages. pipx and uv note their own installations in a file of the environment.
    """
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    environment = Path(sys.prefix)
    if (environment / "pipx_metadata.json").exists():
        install, pins = "pipx install --force", "--pip-args='-c constraints.txt' "
    elif (environment / "uv-receipt.toml").exists():
        install, pins = "uv tool install --force", "-c constraints.txt "
    else:
        install, pins = f"{_python(environment)}pip install", "-c constraints.txt "
    try:
        written = distribution(DISTRIBUTION).read_text("direct_url.json")
        if written is None:
            return f"{install} '{DISTRIBUTION}[{extra}]'"
        folder = url2pathname(urlsplit(str(json.loads(written)["url"])).path)
        clone = folder if (Path(folder) / "constraints.txt").is_file() else "the clone"
    except (PackageNotFoundError, OSError, ValueError, KeyError, TypeError):
        clone = "the clone"
    return f"{install} {pins}'.[{extra}]', in {clone}"


def _python(environment: Path) -> str:
    """Return how to call pip of this environment: by its name where the environment is active, or is the only one."""
    active = os.environ.get("VIRTUAL_ENV")
    if sys.prefix == sys.base_prefix or (active is not None and Path(active).resolve() == environment.resolve()):
        return ""
    return f"{sys.executable} -m "
