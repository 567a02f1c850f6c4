#!/usr/bin/env bash
# torch 2.13.0 and faiss-cpu 1.15.1 (Linux, x86-64, wheels from PyPI) each bring a libgomp of their own, and both are
# loaded. Yet `torch.set_num_threads(1)` sets the threads of FAISS, too, if torch was imported first; if FAISS was, it
# does not. The other way round, `faiss.omp_set_num_threads(1)` never sets those of torch.
#
# Seen: "torch first: FAISS 2 -> 1", "FAISS first: FAISS 2 -> 2", with OMP_NUM_THREADS=2.
# So a program that searches with FAISS beside a network has its number of threads changed by the order of two imports.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 faiss-cpu==1.15.1 numpy==2.4.6
cat > "$work/look.py" <<'PYTHON'
import importlib
import sys

for name in sys.argv[1:]:
    importlib.import_module(name)
import faiss
import torch

before = faiss.omp_get_max_threads()
torch.set_num_threads(1)
after = faiss.omp_get_max_threads()
torch.set_num_threads(2)
faiss.omp_set_num_threads(1)
print(before, after, torch.get_num_threads())
PYTHON
look() { OMP_NUM_THREADS=2 "$work/venv/bin/python" "$work/look.py" "$@"; }
torch_first=$(look torch faiss)
faiss_first=$(look faiss torch)
echo "torch first: FAISS ${torch_first% *}, torch after FAISS was set to 1: ${torch_first##* }"
echo "FAISS first: FAISS ${faiss_first% *}, torch after FAISS was set to 1: ${faiss_first##* }"
[ "$torch_first" = "2 1 2" ] && [ "$faiss_first" = "2 2 2" ] || { echo "this has changed" >&2; exit 1; }
echo "as it was"
