#!/usr/bin/env bash
# Ray 2.60.0 with Ray Client (Python 3.11, Linux): of a task that RETURNS an exception, as a value, `reference.future()`
# and `await reference` raise it where the driver is connected through Ray Client (ray://HOST:PORT). `ray.get` returns it,
# and so do all three where the driver is connected directly. The client takes every exception for a failure as it
# passes a value to a callback. Inside a list an exception is returned by all.
#
# Seen, get, future, await: "direct: returned, returned, returned", "Ray Client: returned, raised, raised".
set -euo pipefail
work=$(mktemp -d)
head=
end() {
    if [ -n "$head" ]; then kill "$head" && wait "$head"; fi || true  # it ends all processes that it has started
    rm -rf "$work"
}
trap end EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "ray[client]==2.60.0"
cat > "$work/look.py" <<'PYTHON'
import asyncio
import logging
import sys

import ray

ray.init(sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)


@ray.remote
def give():
    return ValueError("a value")


async def wait():
    return await give.remote()


def how(ask):
    try:
        found, by = ask(), "returned"
    except ValueError as error:
        found, by = error, "raised"
    assert type(found) is ValueError and str(found) == "a value", repr(found)
    return by


asks = (lambda: ray.get(give.remote()), lambda: give.remote().future().result(), lambda: asyncio.run(wait()))
print(", ".join(how(ask) for ask in asks))
PYTHON
cat > "$work/ports.py" <<'PYTHON'
import socket

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in sockets))
PYTHON
read -r direct client <<< "$("$work/venv/bin/python" "$work/ports.py")"
RAY_AUTH_TOKEN=$("$work/venv/bin/python" -c 'import secrets; print(secrets.token_hex(16))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS
"$work/venv/bin/ray" start --head --block --node-ip-address=127.0.0.1 --port="$direct" \
    --ray-client-server-port="$client" --num-cpus=1 --object-store-memory=100000000 --include-dashboard=false \
    --disable-usage-stats --temp-dir="$work/ray" > "$work/log" 2>&1 &
head=$!
until grep -q "Ray runtime started" "$work/log"; do
    kill -0 "$head" || { cat "$work/log" >&2; exit 1; }
    sleep 0.2
done
look() { "$work/venv/bin/python" "$work/look.py" "$1"; }
seen="direct: $(look "127.0.0.1:$direct")
Ray Client: $(look "ray://127.0.0.1:$client" || look "ray://127.0.0.1:$client")"  # its server may fail to start once
echo "$seen"
[ "$seen" = "direct: returned, returned, returned
Ray Client: returned, raised, raised" ] || { echo "this has changed" >&2; exit 1; }
echo "as it was"
