#!/usr/bin/env bash
# pymilvus 3.0.2 with python-dotenv 1.2.4 (Python 3.11, Linux): `import pymilvus` loads the nearest file `.env` into the
# environment of the process. In `python -c`, a console or a notebook it is that of the current folder or of one above;
# in a program it is that of a folder above pymilvus itself, so of the project whose folder holds the virtual environment.
# From MILVUS_URI pymilvus then makes a connection, and the import itself raises where it cannot read that value. A file
# of Milvus Lite, which `MilvusClient` accepts as its uri, is such a value. PYTHON_DOTENV_DISABLED=1 prevents this.
#
# Seen: "python -c: SETTING=current", "program: SETTING=project", "disabled: SETTING=None",
# "MILVUS_URI=./milvus.db: ConnectionConfigException", "MILVUS_URI=http://127.0.0.1:19530: imported".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHON_DOTENV_DISABLED MILVUS_URI MILVUS_DEFAULT_CONNECTION
mkdir -p "$work/project" "$work/program" "$work/current/below"
python3 -m venv "$work/project/venv"
python=$work/project/venv/bin/python
"$python" -m pip install --quiet --disable-pip-version-check pymilvus==3.0.2 python-dotenv==1.2.4 numpy==2.4.6
echo SETTING=project > "$work/project/.env"
echo SETTING=current > "$work/current/.env"
look='import os, pymilvus; print("SETTING=" + str(os.environ.get("SETTING")))'
tried='
try:
    import pymilvus
    print("imported")
except Exception as error:
    print(type(error).__name__)
'
echo "$look" > "$work/program/look.py"
cd "$work/current/below"
seen=$(
    echo "python -c: $("$python" -c "$look")"
    echo "program: $("$python" "$work/program/look.py")"
    echo "disabled: $(PYTHON_DOTENV_DISABLED=1 "$python" -c "$look")"
    for uri in ./milvus.db http://127.0.0.1:19530; do
        echo "MILVUS_URI=$uri" > "$work/current/.env"
        echo "MILVUS_URI=$uri: $("$python" -c "$tried")"
    done
)
echo "$seen"
[ "$seen" = "python -c: SETTING=current
program: SETTING=project
disabled: SETTING=None
MILVUS_URI=./milvus.db: ConnectionConfigException
MILVUS_URI=http://127.0.0.1:19530: imported" ] || { echo "this has changed" >&2; exit 1; }
echo "as it was"
