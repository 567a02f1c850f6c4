#!/usr/bin/env bash
# torch 2.13.0 (Linux, x86-64, CPU): SiLU, sigmoid and GELU with tanh give an element other last bits by how PyTorch divides
# a tensor among its threads. Each thread gets an equal share of the numbers, wherever a row ends; what does not fill two
# vectors at the end of a share is computed one by one, with another exponential. So the number of a row depends on the
# rows beside it and on the threads. GELU with erf does not; nor do they where every share holds whole rows of full vectors.
#
# Seen, 296 and 297 rows of 512 standard normal numbers, 3 threads against 1: "silu: 296 rows differ, 297 rows equal",
# "sigmoid: ...", "gelu tanh: ..." alike, "gelu erf: 296 rows equal, 297 rows equal"; one to six numbers, at most 6e-8.
# Batch-invariant products are therefore not enough for a network that answers the same whatever the batch.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$work/look.py" <<'PYTHON'
import torch
import torch.nn.functional as F

FUNCTIONS = {
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu erf": F.gelu,
}
torch.manual_seed(0)
for name, function in FUNCTIONS.items():
    seen = []
    for rows in (296, 297):
        equal = True
        for _ in range(20):
            x = torch.randn(rows, 512)
            torch.set_num_threads(1)
            expected = function(x)
            torch.set_num_threads(3)
            equal &= torch.equal(function(x), expected)
        seen.append(f"{rows} rows {'equal' if equal else 'differ'}")
    print(f"{name}: {', '.join(seen)}")
PYTHON
seen=$("$work/venv/bin/python" "$work/look.py")
echo "$seen"
[ "$seen" = "silu: 296 rows differ, 297 rows equal
sigmoid: 296 rows differ, 297 rows equal
gelu tanh: 296 rows differ, 297 rows equal
gelu erf: 296 rows equal, 297 rows equal" ] || { echo "this has changed" >&2; exit 1; }
echo "as it was"
