#!/usr/bin/env bash
# Ray 2.60.0 (Python 3.11, Linux): where the user has a token in ~/.ray/auth_token, as `ray get-auth-token --generate`
# leaves it, `ray start --head` wants it of every client, without being told to. `ray.init` with the address of that
# cluster, by the same user on the same machine, does not send it: it ends with a ConnectionError after some 10 seconds,
# which does not speak of tokens. With RAY_AUTH_MODE=token it connects; with that it also connects to a cluster that
# wants none.
#
# Seen: "ray start: wants a token", "ray.init: ConnectionError", "ray.init with RAY_AUTH_MODE=token: connected".
set -euo pipefail
work=$(mktemp -d /tmp/ray.XXXXXX) # short: Ray keeps sockets there, whose paths have at most 107 bytes
head=
end() {
    if [ -n "$head" ]; then kill "$head" && wait "$head"; fi || true # it ends all processes that it has started
    rm -rf "$work"
}
trap end EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check ray==2.60.0
export HOME="$work/home" RAY_USAGE_STATS_ENABLED=0
unset RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH RAY_ADDRESS
mkdir -p "$HOME/.ray"
"$work/venv/bin/python" -c 'import secrets; print(secrets.token_hex(32), end="")' > "$HOME/.ray/auth_token"
port=$("$work/venv/bin/python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/ray" start --head --block --num-cpus=1 --port="$port" --node-ip-address=127.0.0.1 \
    --include-dashboard=false --disable-usage-stats --object-store-memory=100000000 --temp-dir="$work/ray" \
    > "$work/log" 2>&1 &
head=$!
until grep -q "Ray runtime started" "$work/log"; do
    kill -0 "$head" || { cat "$work/log" >&2; exit 1; }
    sleep 0.2
done
wants="wants none"
if grep -q "Token authentication is enabled" "$work/log"; then wants="wants a token"; fi
connect() {
    env "$@" "$work/venv/bin/python" - "127.0.0.1:$port" 2> /dev/null <<'PYTHON'
import sys

import ray

try:
    ray.init(sys.argv[1], log_to_driver=False)
except Exception as error:
    print(type(error).__name__)
else:
    print("connected")
PYTHON
}
plain=$(connect A=)
told=$(connect RAY_AUTH_MODE=token)
echo "ray start: $wants"
echo "ray.init: $plain"
echo "ray.init with RAY_AUTH_MODE=token: $told"
if [ "$wants, $plain, $told" != "wants a token, ConnectionError, connected" ]; then
    echo "this has changed" >&2
    exit 1
fi
echo "as it was"
