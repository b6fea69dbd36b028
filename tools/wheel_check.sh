#!/usr/bin/env bash
# Whether a release would work: builds the distributions from what git knows, installs the wheel with its pinned
# dependencies into an empty environment, and trains with it from a folder that has nothing to do with the repository.
# Some minutes and 2 GB, all of it below one temporary folder; `make wheel-check`.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d "${TMPDIR:-/tmp}/wheel-check.XXXXXX")
trap 'rm -rf "$place"' EXIT
mkdir "$place"/{source,elsewhere,home,tmp}
export TMPDIR=$place/tmp PIP_CONSTRAINT=$repository/requirements.lock PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH VIRTUAL_ENV

step() { # NAME COMMAND...: silent as long as it goes well
    local began=$SECONDS
    if "${@:2}" >"$place/log" 2>&1 </dev/null; then
        echo "wheel-check: $1, $((SECONDS - began)) s"
    else
        tail -n 40 "$place/log"
        echo "wheel-check: FAILED: $1" >&2
        exit 1
    fi
}
copy_tracked() { git -C "$repository" ls-files -z | tar -C "$repository" --null -T - -c | tar -C "$place/source" -x; }
carries_licences() (
    cd "$repository"
    diff <(printf 'licenses/%s\n' LICENSE THIRD_PARTY.md licenses/*) \
        <(.venv/bin/python -m zipfile -l "$place/dist/$wheel" | grep -oE 'licenses/[^ ]+' | LC_ALL=C sort)
)
installed() { (cd "$place/elsewhere" && HOME=$place/home "$place/venv/bin/$1" "${@:2}"); }
comes_from_the_wheel() { installed python -c 'import polybeast_moe._C as c; print(c.__file__)' | grep "^$place/venv/"; }
two_processes="from polybeast_moe.envs import NetHackVectorEnv
env = NetHackVectorEnv('NetHackScore-v0', 4, num_processes=2)
env.reset(seed=0)
env.step(env.action_space.sample())
env.close()"
nothing_is_left() { ls -A "$TMPDIR" && [ -z "$(ls -A "$TMPDIR")" ]; }

step "copy what git tracks" copy_tracked
step "build" "$repository/.venv/bin/python" -m build --outdir "$place/dist" "$place/source"
wheel=$(basename "$place"/dist/*.whl)
step "look for its licences" carries_licences
step "make an environment" "$repository/.venv/bin/python" -m venv "$place/venv"
step "install $wheel" "$place/venv/bin/pip" install --no-compile "$place/dist/$wheel"
step "import" comes_from_the_wheel
step "polybeast-moe --help" installed polybeast-moe --help
step "polybeast-moe doctor --self-test" installed polybeast-moe doctor --self-test
step "play in two processes" installed python -c "$two_processes"
step "polybeast-moe train debug" installed polybeast-moe train debug --run-dir run
step "leave nothing in $TMPDIR" nothing_is_left
frames=$(tail -n 1 "$place/elsewhere/run/metrics.csv" | cut -d, -f1)
echo "wheel-check: $wheel, installed where nothing else is, trained on $frames frames ($SECONDS s in all)"
