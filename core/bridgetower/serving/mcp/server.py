"""The server of the protocol: its tools, with arguments that are checked here, as the SDK drops unknown ones."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel, ValidationError

from bridgetower import __version__
from bridgetower.checkpoints.cache import cache_folder
from bridgetower.records import Say
from bridgetower.serving.engine import Engine
from bridgetower.serving.fields import words_of
from bridgetower.serving.local.client import Wanted
from bridgetower.serving.mcp.asking import Asking, ProgressHearing
from bridgetower.serving.mcp.errors import line_of
from bridgetower.serving.mcp.schemas import (
    FillAnswer,
    FillArguments,
    LookArguments,
    MatchAnswer,
    MatchArguments,
    SearchAnswer,
    SearchArguments,
)
from bridgetower.serving.mcp.tools import Tools

_TOGETHER = 8  # requests that run at a time
_CLIENT_GONE = (BrokenPipeError, ConnectionResetError)

INSTRUCTIONS = (
    "Search the user's own pictures, indexed on this machine, by what they show. `search` finds pictures, and shows "
    "them as one numbered contact sheet; `look` shows some of them larger; `match` checks statements about them; "
    "`fill` reads words out of them. All only read. A `match` is the probability that a text is true of a picture: "
    "trust it. A `similarity` only proposed the picture: compare it within one search, never with a match."
)


@dataclass(frozen=True, slots=True)
class _Kind:
    title: str
    description: str
    arguments: type[BaseModel]
    answer: type[BaseModel] | None


_KINDS = {
    "search": _Kind(
        "Search pictures",
        "Find pictures of the index by what they show (`text`), by a picture that they should look like (`like`), or "
        "both. Returns hits, best first, a line for each, and one picture: a contact sheet whose numbers are the "
        "ranks. `match` is the probability, from 0 to 1, that the text is true of the picture, judged by the full "
        "model; only the best `depth` candidates have one. `similarity` is the cosine by which candidates are "
        "proposed; it has no natural cut-off and is no probability. Many pictures match nothing: no hit, or a low "
        "`best_match`, is an answer. Describe what is to be seen, in English; names of people and places are not "
        "known.",
        SearchArguments,
        SearchAnswer,
    ),
    "look": _Kind(
        "Look at pictures",
        "Show up to 4 pictures of the index by their ids, upright and scaled, each after a line with its path and the "
        "date on which it was taken. For details that the contact sheet of a search is too small for.",
        LookArguments,
        None,
    ),
    "match": _Kind(
        "Match texts with pictures",
        "Score every given text with every given picture of the index. Returns for each pair `match`, the "
        "probability from 0 to 1 that the text is true of the picture, and `similarity`, a cosine that is no "
        "probability. Write each text as a full statement: to tell pictures apart, compare several statements.",
        MatchArguments,
        MatchAnswer,
    ),
    "fill": _Kind(
        "Fill in words",
        "Predict the word of each `<mask>` in a sentence from pictures: those of `ids`, or without them those of the "
        "index that the sentence fits best. Returns words with their probabilities, and the pictures that support "
        "each. It answers what, which colour or how many: 'a <mask> on a couch'.",
        FillArguments,
        FillAnswer,
    ),
}


def create_server(tools: Tools, *, say: Say, defect: Callable[[BaseException], object]) -> Server[Any]:
    """Return the server of these tools. `say` gets lines for the user, `defect` errors that are defects."""
    # A call that is cancelled keeps its thread until its work ends, so no more than these work together.
    threads = ThreadPoolExecutor(_TOGETHER, thread_name_prefix="tool")

    async def list_tools(_: ServerRequestContext[Any], __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[_tool(name, kind) for name, kind in _KINDS.items()])

    async def call_tool(context: ServerRequestContext[Any], call: CallToolRequestParams) -> CallToolResult:
        kind = _KINDS.get(call.name)
        if kind is None:
            return _failed(f"there is no tool {call.name[:50]!a}: there are {', '.join(_KINDS)}")
        try:
            given = kind.arguments.model_validate(call.arguments or {})
        except ValidationError as error:
            return _failed(words_of(error.errors(include_url=False, include_input=False)[0]))
        loop = asyncio.get_running_loop()

        def progressed(done: int, total: int) -> None:
            asyncio.run_coroutine_threadsafe(context.session.report_progress(done, total), loop)

        hearing = ProgressHearing(progressed)
        try:
            content, structure = await loop.run_in_executor(threads, getattr(tools, call.name), given, hearing)
        except asyncio.CancelledError:
            hearing.leave()
            raise
        except Exception as error:  # noqa: BLE001 - each becomes a line for the client
            return _failed(line_of(error, say, defect))
        return CallToolResult(content=content, structured_content=structure)

    return Server(
        "bt",
        version=__version__,
        title="bt: search pictures",
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def run_on(
    engine: Engine,
    wanted: Wanted | None,
    reading: TextIOWrapper,
    writing: TextIOWrapper,
    *,
    say: Say,
    defect: Callable[[BaseException], object],
) -> None:
    """Answer the client on two streams until it closes the first, or reads no longer."""
    tools = Tools(Asking(engine, wanted), cache_folder() / "thumbnails")
    server = create_server(tools, say=say, defect=defect)

    async def answer() -> None:
        async with stdio_server(anyio.wrap_file(reading), anyio.wrap_file(writing)) as (received, sent):
            await server.run(received, sent, server.create_initialization_options())

    try:
        anyio.run(answer)
    except* _CLIENT_GONE:
        pass
    finally:
        tools.close()


def _tool(name: str, kind: _Kind) -> Tool:
    return Tool(
        name=name,
        title=kind.title,
        description=kind.description,
        input_schema=kind.arguments.model_json_schema(),
        output_schema=None if kind.answer is None else kind.answer.model_json_schema(),
        annotations=ToolAnnotations(
            title=kind.title, read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        ),
    )


def _failed(line: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=line)], is_error=True)
