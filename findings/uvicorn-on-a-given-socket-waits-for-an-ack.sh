#!/usr/bin/env bash
# uvicorn 0.54.0 with h11 0.16.0 (Python 3.11, Linux) leaves Nagle's algorithm on where it is given a socket that
# `socket.create_server` or its own `Config.bind_socket` has made, as with `workers` or `reload`. asyncio sets
# TCP_NODELAY only on sockets whose protocol number is IPPROTO_TCP, and that of these is 0; an accepted socket inherits
# it. uvicorn writes the head and the body of an answer in two pieces, so the second waits for a delayed
# acknowledgement: 40 ms for a request on a kept connection, after the first few. Told a host and a port, it does not.
#
# Seen: "host and port: nodelay on, 1 ms", "create_server: nodelay off, 43 ms", "bind_socket: nodelay off, 43 ms".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check uvicorn==0.54.0 h11==0.16.0
cat > "$work/look.py" <<'PYTHON'
import http.client
import socket
import statistics
import sys
import threading
import time

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

nodelay = set()


class Protocol(H11Protocol):
    def connection_made(self, transport):
        accepted = transport.get_extra_info("socket")
        nodelay.add(bool(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
        super().connection_made(transport)


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


port = free_port()
config = uvicorn.Config(app, host="127.0.0.1", port=port, http=Protocol, lifespan="off", log_level="critical", ws="none")
given = {
    "host-and-port": lambda: None,
    "create_server": lambda: [socket.create_server(("127.0.0.1", port))],
    "bind_socket": lambda: [config.bind_socket()],
}[sys.argv[1]]()
server = uvicorn.Server(config)
threading.Thread(target=server.run, kwargs={"sockets": given}, daemon=True).start()
while not server.started:
    time.sleep(0.01)
client = http.client.HTTPConnection("127.0.0.1", port)
seconds = []
for _ in range(40):
    began = time.perf_counter()
    client.request("GET", "/")
    client.getresponse().read()
    seconds.append(time.perf_counter() - began)
[on] = nodelay
print("on" if on else "off", round(1000 * statistics.median(seconds)))
PYTHON
changed=0
look() {
    read -r nodelay ms <<< "$("$work/venv/bin/python" "$work/look.py" "$1")"
    echo "${1//-/ }: nodelay $nodelay, $ms ms"
    [ "$nodelay" = "$2" ] || changed=1
    if [ "$2" = off ]; then [ "$ms" -ge 20 ] || changed=1; else [ "$ms" -lt 20 ] || changed=1; fi
}
look host-and-port on
look create_server off
look bind_socket off
[ "$changed" = 0 ] || { echo "this has changed" >&2; exit 1; }
echo "as it was"
