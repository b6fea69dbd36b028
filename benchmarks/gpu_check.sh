#!/usr/bin/env bash
# On a machine with a GPU: kernels against their references and against a copy's bandwidth, and end-to-end frames a
# second (learner and policy worker compute on the CPU as yet). Without a GPU it says so and ends with code 3. It has not
# been run on a GPU: no figure of it exists.
#
#   benchmarks/gpu_check.sh [OUT_DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-build/gpu_check}
python=.venv/bin/python
mkdir -p "$out"
$python - <<'PYTHON' || exit 3
import sys
import torch

if not torch.cuda.is_available():
    print("gpu_check: torch finds no GPU here; nothing was run", file=sys.stderr)
    sys.exit(1)
device = torch.cuda.get_device_properties(0)
print(f"{device.name}, {device.total_memory / 2**30:.0f} GiB, torch {torch.__version__}")
PYTHON
$python -m pytest -q -p no:cacheprovider tests/ops | tee "$out/kernels.txt"
$python benchmarks/ops.py --threads 1 | tee "$out/ops.md"
$python benchmarks/end_to_end.py --rounds 1 --seconds 60 --json "$out/end_to_end.json" | tee "$out/end_to_end.txt"
nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv | tee "$out/memory.csv"
