#!/usr/bin/env bash
# pymilvus 3.0.2 with grpcio 1.85.3 (Python 3.11, Linux) raises errors again with `raise e from e`, so an error becomes
# its own `__cause__`. A loop that follows `__cause__` to find what lies behind an error does not end. That is so for the
# most common failure of all: of a connection to a port where nothing listens, the cause is an error of gRPC, whose cause
# is itself. Python's own traceback stops there.
#
# Seen: "MilvusException <- _InactiveRpcError <- itself".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check pymilvus==3.0.2 grpcio==1.85.3 numpy==2.4.6
cat > "$work/look.py" <<'PYTHON'
import logging
import os
import socket

os.environ["PYTHON_DOTENV_DISABLED"] = "1"  # else the import reads a file .env
from pymilvus import MilvusClient

logging.disable()
with socket.socket() as bound:  # does not listen
    bound.bind(("127.0.0.1", 0))
    error = None
    try:
        MilvusClient(f"http://127.0.0.1:{bound.getsockname()[1]}", timeout=2)
    except Exception as raised:
        error = raised
chain = []
while error is not None:
    chain.append(type(error).__name__)
    if error.__cause__ is error:
        chain.append("itself")
        break
    error = error.__cause__
print(" <- ".join(chain))
PYTHON
cd "$work"
seen=$(env -u MILVUS_URI -u MILVUS_DEFAULT_CONNECTION "$work/venv/bin/python" "$work/look.py")
echo "$seen"
[ "$seen" = "MilvusException <- _InactiveRpcError <- itself" ] || { echo "this has changed" >&2; exit 1; }
echo "as it was"
