#!/usr/bin/env bash
# huggingface_hub 2.4.0: `scan_cache_dir().delete_revisions(COMMIT)` takes a commit without its repository. Where two
# repositories of the cache have it, one of them is deleted, and which one depends on the order of a set, that is on the
# hash seed of the process. A repository that was duplicated with its history has the commits of the first one.
#
# Seen, of two repositories with one commit, in processes with the hash seeds 0 to 9: some delete the one, some the other.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check huggingface_hub==2.4.0
cat > "$work/look.py" <<'PYTHON'
import sys
from pathlib import Path

import huggingface_hub

cache, commit = Path(sys.argv[1]), "0123456789abcdef0123456789abcdef01234567"
for name in ("first", "copy"):
    repository = cache / f"models--someone--{name}"
    for folder in ("refs", "blobs", f"snapshots/{commit}"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "blobs" / name).write_bytes(bytes(40))
    (repository / "snapshots" / commit / "model.safetensors").symlink_to(f"../../blobs/{name}")

strategy = huggingface_hub.scan_cache_dir(cache).delete_revisions(commit)
print(huggingface_hub.__version__, *sorted(path.name for path in strategy.repos))
PYTHON
for seed in 0 1 2 3 4 5 6 7 8 9; do
	PYTHONHASHSEED=$seed "$work/venv/bin/python" "$work/look.py" "$work/cache$seed"
done > "$work/seen"
sort "$work/seen" | uniq -c
if [[ $(sort -u "$work/seen") != $'2.4.0 models--someone--copy\n2.4.0 models--someone--first' ]]; then
	echo "this has changed" >&2
	exit 1
fi
echo "as it was"
