#!/usr/bin/env bash
# Ray 2.60.0 (Python 3.11, Linux) with `ray.init(log_to_driver=False, logging_level=CRITICAL)` still writes to the stdout of
# the driver when a worker dies at its work: a line that begins with "(raylet)". It stands between the lines that the
# program itself writes, such as JSON. An actor that ends by `ray.kill` causes none.
#
# Seen, lines on stdout: "ended by ray.kill: 0", "ended by os._exit: 1", "ended by SIGKILL: 1".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check ray==2.60.0
cat > "$work/look.py" <<'PYTHON'
"""Print nothing: what is on stdout is Ray's."""

import logging
import os
import signal
import sys
import time

import ray

how, folder = sys.argv[1:]
ray.init(
    num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL,
    object_store_memory=10**8, _node_ip_address="127.0.0.1", _temp_dir=folder,
)  # fmt: skip


@ray.remote(max_restarts=0)
class Actor:
    def answer(self):
        return 1

    def die(self, how):
        if how == "os._exit":
            os._exit(1)
        os.kill(os.getpid(), signal.SIGKILL)


actor = Actor.remote()
assert ray.get(actor.answer.remote()) == 1
if how == "ray.kill":
    ray.kill(actor)
else:
    try:
        ray.get(actor.die.remote(how))
        raise AssertionError("the actor lives")
    except ray.exceptions.RayActorError:
        pass
time.sleep(5)
PYTHON
RAY_AUTH_TOKEN=$("$work/venv/bin/python" -c 'import secrets; print(secrets.token_hex(16))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS
changed=0
look() {
    "$work/venv/bin/python" "$work/look.py" "$1" "$work/ray" > "$work/stdout" 2> "$work/stderr" ||
        { cat "$work/stderr" >&2; exit 1; }
    lines=$(wc -l < "$work/stdout")
    echo "ended by $1: $lines"
    cut -c 1-100 "$work/stdout"
    [ "$lines" = "$2" ] && [ "$(grep -c "(raylet)" "$work/stdout")" = "$2" ] || changed=1
}
look ray.kill 0
look os._exit 1
look SIGKILL 1
[ "$changed" = 0 ] || { echo "this has changed" >&2; exit 1; }
echo "as it was"
