"""`bt mcp` as a process, over real stdio: nothing but the protocol on stdout, with and without a server."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from typer.testing import CliRunner

from bridgetower import Library
from bridgetower_cli.parser import app
from tests.console_blocks import HOME, agrees
from tests.servers import running

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "examples" / "gallery"
PAGE = ROOT / "docs" / "mcp.md"
COMMAND = [sys.executable, "-P", "-m", "bridgetower_cli", "mcp"]

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an index of a few pictures, and a runtime folder for the socket."""
    place = tmp_path_factory.mktemp("mcp")
    (place / "photos").mkdir()
    (place / "run").mkdir(mode=0o700)
    for path in sorted(GALLERY.glob("*.jpg"))[:6]:
        shutil.copy(path, place / "photos")
    before = dict(os.environ)
    os.environ |= {"XDG_RUNTIME_DIR": str(place / "run"), "BT_MODEL": "demo", "XDG_STATE_HOME": str(place / "state")}
    os.environ |= {"BT_PRECISION": "fp32", "BT_INDEX": str(place / "index")}
    with Library(place / "index", "demo", precision="fp32") as library:
        library.index([place / "photos"])
    yield place
    os.environ.clear()
    os.environ.update(before)


def test_an_agent_searches_looks_matches_and_fills(place: Path) -> None:
    async def ask() -> tuple[Any, ...]:
        server = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=dict(os.environ))
        async with Client(server) as client:
            tools = (await client.list_tools()).tools
            search = await client.call_tool("search", {"text": "two cats on a couch", "top": 3})
            ids = [hit["id"] for hit in search.structured_content["hits"]]
            look = await client.call_tool("look", {"ids": ids[:2]})
            match = await client.call_tool("match", {"ids": ids, "texts": ["two cats on a couch"]})
            fill = await client.call_tool("fill", {"text": "two <mask> on a couch", "ids": ids[:1], "top": 2})
            return tools, search, look, match, fill

    tools, search, look, match, fill = asyncio.run(ask())
    assert [tool.name for tool in tools] == ["search", "look", "match", "fill"]
    with Library(place / "index", precision="fp32") as library:
        found = library.search("two cats on a couch", top=3)
        words = library.model.fill("two <mask> on a couch", [found[0].path], top=2).words
    assert [(hit["id"], hit["match"]) for hit in search.structured_content["hits"]] == [
        (hit.hash, pytest.approx(hit.match, abs=1e-5)) for hit in found
    ]
    assert [block.type for block in search.content] == ["text", "image"]
    assert [block.type for block in look.content] == ["text", "image"] * 2
    assert [one["match"] for one in match.structured_content["scores"]] == [
        pytest.approx(hit.match, abs=1e-5) for hit in found
    ]
    assert [one["token"] for one in fill.structured_content["words"]] == [word.token for word in words]


def start(*options: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([*COMMAND, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def send(process: "subprocess.Popen[bytes]", **message: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
    process.stdin.flush()


def receive(process: "subprocess.Popen[bytes]", id: int) -> dict[str, Any]:
    """The answer with this id; each line before it is a message of the protocol, too."""
    assert process.stdout is not None
    while True:
        message = json.loads(process.stdout.readline())
        assert message["jsonrpc"] == "2.0"
        if message.get("id") == id:
            result: dict[str, Any] = message["result"]
            return result


def shake_hands(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a test", "version": "1"}}
    send(process, id=1, method="initialize", params=client)
    answer = receive(process, 1)
    send(process, method="notifications/initialized")
    return answer


def test_stdout_has_the_protocol_alone_and_its_end_ends_the_process(place: Path) -> None:
    with start() as process:
        assert shake_hands(process)["serverInfo"]["name"] == "bt"
        send(process, id=2, method="tools/list")
        assert len(receive(process, 2)["tools"]) == 4
        send(process, id=3, method="tools/call", params={"name": "search", "arguments": {"text": "a cat", "top": 1}})
        assert len(receive(process, 3)["structuredContent"]["hits"]) == 1
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quietly(number: signal.Signals, place: Path) -> None:
    with start() as process:
        shake_hands(process)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30)
        assert (process.returncode, stderr) == (0, b"")


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_signal_ends_it_while_a_tool_works_and_after(is_answered: bool, place: Path) -> None:
    with start() as process:
        shake_hands(process)
        send(process, id=2, method="tools/call", params={"name": "search", "arguments": {"text": "a cat", "top": 1}})
        if is_answered:
            assert not receive(process, 2).get("isError")
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=30)
        assert (process.returncode, stderr) == (0, b"")


def test_tools_are_listed_before_anything_heavy_is_loaded(place: Path, tmp_path: Path) -> None:
    with start("--index", str(tmp_path / "none")) as process:
        shake_hands(process)
        send(process, id=2, method="tools/list")
        assert len(receive(process, 2)["tools"]) == 4
        if sys.platform == "linux":
            assert b"libtorch" not in Path(f"/proc/{process.pid}/maps").read_bytes()
        send(process, id=3, method="tools/call", params={"name": "search", "arguments": {"text": "a cat"}})
        answer = receive(process, 3)
        assert answer["isError"] and answer["content"][0]["text"].startswith("there is no index in the folder")
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 0
        assert stderr.decode().startswith(f"error: no index at {tmp_path / 'none'}") and stderr.count(b"\n") == 1


def hits(process: "subprocess.Popen[bytes]", id: int) -> list[Any]:
    arguments = {"text": "two cats on a couch", "top": 3}
    send(process, id=id, method="tools/call", params={"name": "search", "arguments": arguments})
    answer = receive(process, id)["structuredContent"]
    return [(hit["id"], hit["match"], hit["similarity"]) for hit in answer["hits"]]


def test_a_running_server_answers_and_is_done_without_when_it_ends(place: Path) -> None:
    with start() as process:
        shake_hands(process)
        with running(place / "index"):
            served = hits(process, 2)
            if sys.platform == "linux":  # the weights are in the memory of the server alone
                assert b"libtorch" not in Path(f"/proc/{process.pid}/maps").read_bytes()
        alone = hits(process, 3)
        process.communicate(timeout=30)
        assert served == alone
        assert process.returncode == 0


EXCHANGE = re.compile(r"^```json\n.*?^```\n|(?:^ {4}[^\n]*\n)+", re.MULTILINE | re.DOTALL)  # a block of the section


def test_the_page_configures_a_client_and_tells_what_it_hears(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    page = PAGE.read_text("utf-8")
    [configuration] = re.findall(r"^```json\n(.*?)^```", page.partition("\n## An exchange\n")[0], re.M | re.DOTALL)
    [server] = json.loads(configuration)["mcpServers"].values()
    assert server["command"] == "bt" and server["args"][-1] == "/home/ada/photos.index"
    section = page.partition("\n## An exchange\n")[2].partition("\n## ")[0]
    asked, hits, _, *further = EXCHANGE.findall(section)
    calls = [block.split("\n", 1)[0].split(maxsplit=1) for block in further]
    assert [name for name, _ in calls] == ["search", "fill", "search"]
    with Library(tmp_path / "index", "demo", precision="fp32") as library:
        library.index([GALLERY])
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "XDG_RUNTIME_DIR": str(tmp_path)}
    environment["BT_PRECISION"] = "fp32"
    at = Path(sys.executable).parent / server["command"]
    started = StdioServerParameters(
        command=str(at), args=[*server["args"][:-1], str(tmp_path / "index")], env=environment, cwd="/"
    )

    async def ask() -> list[Any]:
        async with Client(started) as client:
            first = asked.removeprefix("```json\n").removesuffix("```\n")
            return [await client.call_tool(name, json.loads(given)) for name, given in [("search", first), *calls]]

    first, *others = asyncio.run(ask())
    text, picture = first.content
    *lines, more, note = text.text.splitlines()
    assert len(lines) == 12
    found = {**first.structured_content, "hits": first.structured_content["hits"][:1]}
    heard = [other.content[0].text.splitlines() for other in others]
    blocks = [
        asked,
        indented([*lines[: len(hits.splitlines()) - 2], more, note]),
        f"```json\n{json.dumps(found, indent=2)}\n```\n",
        *(
            indented([" ".join(call), *(line for line in lines if line != note)])
            for call, lines in zip(calls, heard, strict=True)
        ),
    ]
    kilobytes = len(picture.data) * 3 // 4000
    printed = re.sub(r"\d+ kB of JPEG", f"{kilobytes} kB of JPEG", EXCHANGE.sub(lambda _: blocks.pop(0), section))
    printed = printed.replace(str(GALLERY), f"{HOME}/bt/examples/gallery")
    agree = agrees(section.splitlines(), printed.splitlines())
    if not agree and request.config.getoption("--rewrite"):
        PAGE.write_text(page.replace(section, printed), "utf-8")
        return
    assert agree, printed
    [told] = re.findall(r"(\d+) kB of JPEG", section)
    assert kilobytes == pytest.approx(int(told), abs=5)


def indented(lines: list[str]) -> str:
    return "".join(f"    {line}\n" for line in lines)


def test_all_but_the_protocol_goes_to_stderr() -> None:
    program = (
        "import os, sys\n"
        "from bridgetower.serving.mcp.process import take_streams\n"
        "print('before', file=sys.stderr)\n"
        "reading, writing = take_streams()\n"
        "print('printed', flush=True)\n"
        "os.write(1, b'written\\n')\n"
        "os.system('echo of a child; cat')\n"
        "writing.write(reading.readline())\n"
        "writing.flush()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=b"a message\n", capture_output=True, timeout=60, check=True
    )
    assert done.stdout == b"a message\n"
    assert done.stderr.splitlines() == [b"before", b"printed", b"written", b"of a child"]


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridgetower.serving.mcp.process.find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["mcp"], prog_name="bt")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: `bt mcp` needs the extra mcp: ") and done.stderr.count("\n") == 1
    assert "[mcp]" in done.stderr


def test_closed_streams_are_told() -> None:
    done = subprocess.run(f"{' '.join(COMMAND)} <&-", shell=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr.startswith(b"error: stdin or stdout is closed")
