#!/usr/bin/env bash
# On a machine with a GPU: kernels against their references and against a copy's bandwidth, inference and update by every
# setting of the device path, whole runs, in less than eight minutes; one table. Without a GPU it runs what it can, says
# what did not run, and ends with code 3. It has not been run on a GPU: no figure of it exists.
#
#   benchmarks/gpu_check.sh [--out DIR] [--minutes 7.5] [--quick]
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/python benchmarks/gpu.py "$@"
