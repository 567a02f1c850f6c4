"""The console sessions in the documents: find them, run them, and compare what they print with what the page says.

A block is indented or fenced lines of which at least one begins with `$ `; such a line is a command, the lines below it
are its output, of stdout and stderr alike. The blocks of a page run in order, in one shell, in the folder `bt` of a new
home with a copy of `examples`, in fp32. Comments of HTML above a block speak to this program:

    <!-- first: COMMANDS -->     runs COMMANDS before, unseen by the reader; each must succeed
    <!-- not run: REASON -->     leaves the block out

An output with the prompt `bt> ` is that of a terminal, at which the lines behind the prompts are typed.

An output agrees with the page line by line and word by word. In the page a line or word `...` stands for any number of
them. Numbers with a decimal point may differ by 0.002. Not compared are: seconds, sizes in bytes, points in time,
numbers of processes and ports, cursors, and how wide a column is. The home is /home/ada. Pages leave out the note on
the demo model, and lines of progress.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = "/home/ada"  # in the documents
PORT = "7860"  # in the documents, of `bt serve`
PROMPT = "bt> "  # of a command that asks for lines, which are typed on a terminal then
TYPIST = [sys.executable, str(Path(__file__).with_name("typist.py")), PROMPT]
TOLERANCE = 0.002
ELIDED = "..."
UNSEEN = re.compile(  # lines that the pages leave out: the note on the demo model, and progress of a busy machine
    r"note: the demo model knows drawn scenes only; of photographs it knows nothing|\w+: \d+ of \d+ \w+(, .*)?"
)
MASKS = {
    r"\b\d+(?:\.\d+)? s\b": "<seconds>",
    r"\b\d+(?:\.\d+)? [kMG]?B\b": "<bytes>",
    r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\b": "<time>",
    r"\bprocess \d+": "<process>",
    r"(?<=\.damaged-)\d+": "<time>",
    r"(?<=\bserve-)[0-9a-f]{16}(?=\.log\b)": "<index>",
    r"(?<=//127\.0\.0\.1:)\d+": "<port>",
    r'(?<="cursor": ")[^"]*|(?<=with the cursor alone, ")[^"]*': "<cursor>",
}
_END = "-- the end of an output --"
_NUMBER = re.compile(r"(-?\d+\.\d+(?:e-?\d+)?)")
_COMMENT = re.compile(r"<!-- *(first|not run):(.*?)-->", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A command of a block, its output in the page, and which lines of the page that output is."""

    text: str
    output: list[str]
    lines: slice


@dataclass(frozen=True)
class Block:
    """A block of a page; `first` are commands that run before it."""

    first: str
    not_run: str | None
    indent: str
    commands: list[Command]


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    found, first, not_run = list[Block](), "", None
    lines = page.splitlines()
    at = 0
    while at < len(lines):
        if lines[at].startswith("<!--"):
            end = next(number for number in range(at, len(lines)) if "-->" in lines[number])
            for kind, text in _COMMENT.findall("\n".join(lines[at : end + 1])):
                if kind == "first":
                    first += text.strip() + "\n"
                else:
                    not_run = text.strip()
            at = end + 1
            continue
        fenced, start = lines[at].startswith("```"), at
        if fenced:
            end = next(number for number in range(at + 1, len(lines)) if lines[number].startswith("```"))
            start, at = at + 1, end + 1
        else:
            while at < len(lines) and lines[at].startswith("    "):
                at += 1
            end, at = at, max(at, start + 1)
        indent = "" if fenced else "    "
        if commands := _commands([line[len(indent) :] for line in lines[start:end]], start):
            found.append(Block(first, not_run, indent, commands))
            first, not_run = "", None
        elif (first or not_run) and lines[start].strip():
            raise ValueError(f"a comment stands above line {start + 1}, which is no session")
    if first or not_run:
        raise ValueError("a comment stands at the end")
    return found


def _commands(lines: Sequence[str], offset: int) -> list[Command]:
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    found = []
    for start, end in pairwise([*starts, len(lines)]):
        output = start + 1
        while lines[output - 1].endswith("\\"):
            output += 1
        text = "\n".join(lines[start:output]).removeprefix("$ ")
        while end > output and not lines[end - 1].strip():
            end -= 1
        found.append(Command(text, list(lines[output:end]), slice(offset + output, offset + end)))
    return found


def run(page: Sequence[Block], place: Path, bt: Path) -> list[list[str]]:
    """Run the blocks of a page in a new home in the folder `place`; the output of each of their commands."""
    home, runtime = place / "ada", place / "run"
    script, output, log = place / "script", place / "output", place / "log"
    shutil.copytree(ROOT / "examples", home / "bt" / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    runtime.mkdir(mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    environment = {
        "PATH": os.pathsep.join([str(bt.parent), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "BT_DEVICE": "cpu",
        "BT_PRECISION": "fp32",
    }
    steps = []
    for block in page:
        if block.first:
            steps += [f"set -e; {{\n{block.first}\n}} >{log} 2>&1; set +e"]
        steps += [f"{_typed(command)}\necho; echo {_END}" for command in block.commands]
    commands = "\n".join(steps).replace(HOME, str(home)).replace(f":{PORT}", f":{port}")
    script.write_text(re.sub(r"\bbt serve(?! --stop)", f"bt serve --port {port}", commands))
    try:
        with output.open("wb") as stream:
            done = subprocess.run(
                ["bash", script],
                cwd=home / "bt",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=300,
                check=False,
            )
    finally:
        subprocess.run([bt, "serve", "--stop", "-q"], env=environment, cwd=home, capture_output=True, check=False)
    text = output.read_text("utf-8").replace(str(home), HOME).replace(f":{port}", f":{PORT}")
    *printed, rest = text.split(f"\n{_END}\n")
    if rest or len(printed) != sum(len(block.commands) for block in page):
        raise RuntimeError(f"the shell ended with {done.returncode}: {rest} {log.exists() and log.read_text()}")
    return [[line for line in one.splitlines() if not UNSEEN.fullmatch(line)] for one in printed]


def _typed(command: Command) -> str:
    """The command; where its output has a prompt, on a terminal at which the lines behind the prompts are typed."""
    lines = [line.removeprefix(PROMPT) for line in command.output if line.startswith(PROMPT)]
    if not lines:
        return command.text
    return " ".join(["printf '%s\\n'", *map(shlex.quote, lines), "|", *map(shlex.quote, [*TYPIST, command.text])])


def agrees(said: Sequence[str], printed: Sequence[str]) -> bool:
    """Whether the output in a page is that which was printed."""
    return _agree([line.rstrip() for line in said], [line.rstrip() for line in printed], _lines_agree)


def _agree(said: Sequence[str], printed: Sequence[str], one: Callable[[str, str], bool]) -> bool:
    if not said:
        return not printed
    if said[0] == ELIDED:
        return any(_agree(said[1:], printed[start:], one) for start in range(len(printed) + 1))
    return bool(printed) and one(said[0], printed[0]) and _agree(said[1:], printed[1:], one)


def _lines_agree(said: str, printed: str) -> bool:
    for pattern, mask in MASKS.items():
        said, printed = re.sub(pattern, mask, said), re.sub(pattern, mask, printed)
    return _agree(said.split(), printed.split(), _words_agree)


def _words_agree(said: str, printed: str) -> bool:
    """Words agree outside of numbers to the letter, and in numbers within the tolerance."""
    ours, theirs = _NUMBER.split(said), _NUMBER.split(printed)
    return ours[::2] == theirs[::2] and all(
        abs(float(one) - float(other)) <= TOLERANCE for one, other in zip(ours[1::2], theirs[1::2], strict=True)
    )


def rewritten(said: Sequence[str], printed: Sequence[str]) -> list[str]:
    """The printed output, as much of it left out as in the page."""
    if ELIDED in said:
        before, after = said.index(ELIDED), len(said) - said.index(ELIDED) - 1
        printed = [*printed[:before], ELIDED, *printed[len(printed) - after :]]
    elif len(said) == len(printed):
        printed = [_shortened(*lines) for lines in zip(said, printed, strict=True)]
    return list(printed)


def _shortened(said: str, printed: str) -> str:
    words, theirs = said.split(), printed.split()
    if ELIDED not in words:
        return printed
    before, after = words.index(ELIDED), len(words) - words.index(ELIDED) - 1
    return " ".join([*theirs[:before], ELIDED, *theirs[len(theirs) - after :]])


def rewrite(page: Path, outputs: Sequence[tuple[Block, Command, Sequence[str]]]) -> None:
    """Write outputs of commands into their page, in place of those that are there."""
    lines = page.read_text("utf-8").splitlines()
    for block, command, printed in reversed(outputs):
        output = rewritten(command.output, printed)
        lines[command.lines] = [f"{block.indent}{line}".rstrip() for line in output]
    page.write_text("\n".join(lines) + "\n", "utf-8")
