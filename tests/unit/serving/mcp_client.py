"""An MCP server in process, over pictures of one colour each, and a client in memory that calls its tools."""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from mcp import Client
from mcp_types import CallToolResult
from PIL import Image

from bridgetower.serving.local.client import Wanted
from bridgetower.serving.mcp.asking import Asking
from bridgetower.serving.mcp.server import create_server
from bridgetower.serving.mcp.tools import Tools
from tests.fakes import COLOURS, paint
from tests.unit.serving.http_server import FakeEngine


@dataclass
class Place:
    """A server's engine and tools, its pictures, and what it says."""

    engine: Any  # a FakeEngine, in most tests
    tools: Tools
    photos: Path
    ids: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    defects: list[BaseException] = field(default_factory=list)

    def ask(self, name: str, /, **arguments: Any) -> CallToolResult:
        """Call a tool by a client in memory, which checks the structure by the schema."""

        async def call() -> CallToolResult:
            server = create_server(self.tools, say=self.said.append, defect=self.defects.append)
            async with Client(server) as client:
                await client.list_tools()
                return await client.call_tool(name, arguments)

        return asyncio.run(call())

    def refused(self, name: str, /, **arguments: Any) -> str:
        """Return the line with which a call is refused."""
        answer = self.ask(name, **arguments)
        assert answer.is_error and answer.structured_content is None
        [line] = texts(answer)
        assert "\n" not in line and str(self.photos.parent) not in line
        return line


@contextmanager
def colours_asked(folder: Path, wanted: Wanted | None = None) -> Iterator[Place]:
    photos = folder / "photos"
    files = {name: paint(photos / f"{name}.png", name) for name in COLOURS}
    engine = FakeEngine(folder / "index")
    engine.colours.index([photos])
    tools = Tools(Asking(engine, wanted), folder / "thumbnails")
    ids = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    yield Place(engine, tools, photos, ids)
    tools.close()
    engine.close()


def texts(answer: CallToolResult) -> list[str]:
    return [block.text for block in answer.content if block.type == "text"]


def pictures(answer: CallToolResult) -> list[Image.Image]:
    import base64

    blocks = [block for block in answer.content if block.type == "image"]
    assert all(block.mime_type == "image/jpeg" for block in blocks)
    return [Image.open(BytesIO(base64.b64decode(block.data)), formats=("JPEG",)) for block in blocks]


def structure(answer: CallToolResult) -> dict[str, Any]:
    assert not answer.is_error, answer.content
    found: dict[str, Any] = answer.structured_content
    return found


def names(answer: CallToolResult) -> list[str]:
    return [Path(hit["path"]).stem for hit in structure(answer)["hits"]]
