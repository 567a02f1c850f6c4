"""An MCP server on stdin and stdout, for agents: search, look, match, fill. It reads an index, and changes nothing.

    stdin -> server (arguments checked) -> tools -> asking: a running `bt serve`, or the engine of this process
                                                 -> sheet: hits as one picture, pictures made small

All but `process` needs the extra `mcp`. `bridgetower_cli.commands.mcp` starts it.
"""
