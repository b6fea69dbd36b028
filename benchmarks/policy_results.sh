#!/usr/bin/env bash
# Writes docs/results/{coverage,ops,graph,policy}.{md,json}: about fifteen minutes on two idle cores.
#
#   benchmarks/policy_results.sh RUN_DIR [ALL_ROLES_RUN_DIR [REFERENCE_GRAPH]]
#
# RUN_DIR: a run of configs/score.yaml, whose policy plays. ALL_ROLES_RUN_DIR: a tenth of such a run with
# env.character='"@"'; without it, one is trained here first (some minutes).
# REFERENCE_GRAPH: the reference experiment's graph, a JSON file; without it, graph attention is measured on ours alone.
# Paths are as seen from the root of the repository.
set -euo pipefail
run=${1:?which run: benchmarks/policy_results.sh RUN_DIR [ALL_ROLES_RUN_DIR [REFERENCE_GRAPH]]}
all_roles=${2:-runs/all_roles} reference=${3:-}
cd "$(dirname "$0")/.."
python=.venv/bin/python recordings=build/recordings
mkdir -p "$recordings"

if [ ! -d "$all_roles/snapshots" ]; then
  .venv/bin/polybeast-moe train score env.character='"@"' evaluation.random_episodes=0 --run-dir "$all_roles" \
    phases.warmup.until.frames=400_000 phases.transition.until.frames=900_000 \
    phases.finetune.until.frames=3_000_000 phases.deep_finetune.until.frames=3_800_000
fi
$python benchmarks/play.py --rows 2048 --out $recordings/random.pt
$python benchmarks/play.py --run "$run" --rows 2048 --out $recordings/trained.pt env.max_episode_steps=500
$python benchmarks/play.py --run "$run" --rows 40960 --every 2 --out $recordings/monk.pt env.max_episode_steps=500
$python benchmarks/play.py --run "$run" --rows 40960 --every 4 --out $recordings/monk_long.pt
$python benchmarks/play.py --run "$all_roles" --rows 40960 --every 4 --out $recordings/all_roles.pt

$python benchmarks/conditions.py --steps 40000 --episode-steps 1500 \
  --recorded $recordings/{monk,monk_long,all_roles}.pt --results
$python benchmarks/ops.py --threads 1 --results
$python benchmarks/graph.py --observations $recordings/random.pt $recordings/trained.pt \
  ${reference:+--reference "$reference"} --compile --results
$python benchmarks/policy.py --observations $recordings/random.pt $recordings/trained.pt --results
