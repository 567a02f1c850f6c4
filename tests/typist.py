"""Run a command on a terminal of its own, and type the lines of stdin at its prompt; writes what a person sees.

The arguments are the prompt and the command. After the last line comes Ctrl-D, which leaves.
"""

import fcntl
import os
import pty
import struct
import sys
import termios
from contextlib import suppress

SIZE = struct.pack("HHHH", 50, 200, 0, 0)  # lines and columns


def main(prompt: str, command: str) -> None:
    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, SIZE)
        os.environ["TERM"] = "dumb"  # a table stands as it is at last
        os.execvp("bash", ["bash", "-c", command])
    seen = b""
    for line in [*sys.stdin.read().splitlines(), None]:
        while not seen.endswith(prompt.encode()):
            seen += os.read(terminal, 4096)
        os.write(terminal, b"\x04" if line is None else f"{line}\n".encode())
        seen += os.read(terminal, 1)  # the prompt is no longer at the end
    with suppress(OSError):  # the end of a terminal
        while new := os.read(terminal, 4096):
            seen += new
    os.waitpid(process, 0)
    sys.stdout.write(seen.decode().replace("\r", "").rstrip().removesuffix(prompt.rstrip()))


if __name__ == "__main__":
    main(*sys.argv[1:])
