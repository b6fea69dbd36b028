"""What a GPU makes of the kernels, of inference, of updates and of whole runs: what gpu_check.sh runs. One table.

    python benchmarks/gpu.py [--out build/gpu_check] [--minutes 7.5] [--quick]

Parts run one after the other, each in a process of its own with a limit of its own: one that fails, hangs or finds no
time says so in its row, and the others go on. Whatever needs a GPU says that it did not run where there is none, and
the exit code is then 3; 1 after a failure. Utilisation of a part is the share of the time in which it works, whatever
for; the GPU's own is nvidia-smi's, sampled while the run goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import end_to_end
import results

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / "configs" / "quickstart.yaml")
GPU, CPU = "GPU", "CPU"
NO_GPU = "did not run: torch finds no GPU"
SHAPES = ((1 << 20, 4, 23), (20_480, 64, 121))  # of the mixture: rows, experts, actions
ROWS_A_CALL = (64, 256, 1024)
ROUNDS = 7

Row = tuple[str, str]


class Part(NamedTuple):
    """One part of the check."""

    needs: str
    limit: float
    """Seconds."""
    run: Callable[[bool], list[Row]]
    """Given whether it shall be quick; returns what was measured and the figure."""


def gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def run_tests(files: list[str]) -> list[Row]:
    """The tests of files, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.strip().splitlines()[-1:] or done.stderr.strip().splitlines()[-1:]
    if done.returncode:
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        raise RuntimeError("; ".join([*last, *failed]))
    return [("passed", outcome(done.stdout))]


def outcome(said: str) -> str:
    """How many tests did what, from pytest's dots."""
    marks = "".join(line.split("[")[0].strip() for line in said.splitlines() if line.strip().endswith("%]"))
    names = {".": "passed", "s": "skipped", "x": "expected to fail"}
    return ", ".join(f"{marks.count(mark)} {name}" for mark, name in names.items() if marks.count(mark)) or "none"


def kernels(_quick: bool) -> list[Row]:
    return run_tests(["tests/ops"])


def device_path(_quick: bool) -> list[Row]:
    return run_tests(["tests/test_gpu.py"])


def mixture(quick: bool) -> list[Row]:
    """The fused mixture, forward and backward, against the reference and against a copy of as many bytes."""
    import ops

    found = []
    for shape in SHAPES:
        contestants = {"triton": ops.ours("triton"), "torch": ops.ours("torch")}
        result = ops.race(contestants, shape, "cuda", 3 if quick else ROUNDS)
        micros = result["median_microseconds"]
        share = (
            ops.traffic_bytes(*shape)
            / (micros["triton"] * 1e-6)
            / ops.copy_bandwidth(ops.traffic_bytes(*shape), ROUNDS)
        )
        name = "N {:,}, E {}, A {}".format(*shape)
        found.append(
            (name, f"{micros['triton']:,.0f} us, torch {micros['torch']:,.0f} us; {share:.0%} of a copy's bandwidth")
        )
    return found


class Setup(NamedTuple):
    """Real rollouts and a policy."""

    config: Any
    policy: Any
    rollouts: list[Any]
    close: Callable[[], None]


def setup(*overrides: str) -> Setup:
    """Games of the quickstart that a fresh policy has played, stepped on the CPU, and that policy on its device."""
    import torch

    from polybeast_moe.config_files import load_config
    from polybeast_moe.envs.engine import ACTIONS
    from polybeast_moe.envs.nle_package import check_nle
    from polybeast_moe.graph.configured import configured_graph
    from polybeast_moe.models import build_policy
    from polybeast_moe.runtime.device import choose_device, use
    from polybeast_moe.runtime.inline import InlineRuntime

    config = load_config(CONFIG, ["runtime.groups=2", "learner.slots_per_batch=2", "runtime.mode=inline", *overrides])
    torch.manual_seed(0)
    policy = build_policy(config, configured_graph(config), num_actions=len(ACTIONS))
    folder = tempfile.TemporaryDirectory(prefix="gpu-check-")
    runtime = InlineRuntime(config, policy, check_nle(), Path(folder.name))
    runtime.set_control(phase=0, routing="softmax", temperature=1.0, policy_version=0)
    for _ in range(2):
        rollouts = runtime.collect()
        assert rollouts is not None
        runtime.give_back(rollouts)
    device = choose_device("auto")
    use(device)

    def close() -> None:
        runtime.close()
        folder.cleanup()

    return Setup(config, policy.to(device), rollouts, close)


def median_seconds(work: Callable[[], object], rounds: int) -> float:
    """Of one call, waiting for the device."""
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    times = []
    for turn in range(rounds + 3):
        wait()
        began = time.perf_counter()
        work()
        wait()
        if turn >= 3:
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def inference(execution: str) -> Callable[[bool], list[Row]]:
    """Calls of several sizes with observations on the host and answers there, new weights after every 32 calls."""

    def measure(quick: bool) -> list[Row]:
        import torch

        from polybeast_moe.models.interface import moved
        from polybeast_moe.runtime.inference import make_infer

        made = setup(f"graph.deduplicate={str(execution == 'none').lower()}")
        games = made.config.runtime.games_per_group
        runtime = made.config.runtime.model_copy(update={"policy_graphs": execution})
        infer = make_infer(made.policy, made.config.model_copy(update={"runtime": runtime}), ROWS_A_CALL[-1] // games)
        found = []
        for rows in ROWS_A_CALL[:1] if quick else ROWS_A_CALL:
            seen = made.rollouts[0].observation(0)
            seen = moved(seen, lambda tensor, rows=rows: tensor.repeat(rows // games, *[1] * (tensor.ndim - 1)))
            first, state = torch.zeros(rows, dtype=torch.bool), torch.zeros(rows, made.policy.state_size)
            version = 0

            def call(seen: Any = seen, first: Any = first, state: Any = state) -> None:
                nonlocal version
                version += 1
                infer(seen, state, routing="sparsemax", temperature=0.5, first=first, weights_version=version // 32)

            seconds = median_seconds(call, 5 if quick else 100)
            found.append((f"{rows:,} rows a call", f"{seconds * 1e3:.2f} ms, {seconds / rows * 1e6:.2f} us a row"))
        made.close()
        return found

    return measure


def update(*overrides: str) -> Callable[[bool], list[Row]]:
    """Updates of a batch that is there: forward, backward, optimiser and the report; then what loading it takes."""

    def measure(quick: bool) -> list[Row]:
        import torch

        from polybeast_moe.learning.learner import Learner
        from polybeast_moe.learning.phases import ControllerState, Counters, advance
        from polybeast_moe.runtime.device import device_of
        from polybeast_moe.runtime.loading import batch_on

        made = setup(*overrides)
        _, settings, _ = advance(made.config.phases, ControllerState(), Counters(), {})
        learner, device = Learner(made.policy, made.config.learner), device_of(made.policy)
        batch = batch_on(device, made.rollouts, made.policy)
        rounds, frames = 3 if quick else 50, batch.steps * batch.games
        seconds = median_seconds(lambda: learner.update(batch, settings), rounds)
        loading = median_seconds(lambda: batch_on(device, made.rollouts, made.policy), rounds)
        found = [
            (f"update of {frames:,} frames", f"{seconds * 1e3:.2f} ms, {seconds / frames * 1e6:.2f} us a frame"),
            ("making and copying that batch", f"{loading * 1e3:.2f} ms"),
        ]
        if device.type == "cuda":
            found.append(("most memory", f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB"))
        made.close()
        return found

    return measure


class Watch:
    """Samples nvidia-smi while a run goes on."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--id=0"]
        while not self._done.wait(1.0):
            try:
                said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=10).stdout
                busy, used = said.split(",")
                self.samples.append((float(busy), float(used)))
            except (OSError, ValueError, subprocess.SubprocessError):
                return


def whole_run(*overrides: str) -> Callable[[bool], list[Row]]:
    """`polybeast-moe train` on the quickstart with longer phases."""

    def measure(quick: bool) -> list[Row]:
        warm_up, seconds, window = (3.0, 4.0, 1.0) if quick else (8.0, 14.0, 2.0)
        longer = [f"phases.{name}.until.frames={i}00_000_000" for i, name in enumerate(
            ("warmup", "transition", "finetune", "deep_finetune"), start=1)]  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="gpu-check-") as directory, Watch() as watch:
            run_dir = Path(directory) / "run"
            command = end_to_end.train_command(CONFIG, [*longer, *overrides], run_dir, window)
            end_to_end.run(command, run_dir, warm_up + seconds)
            counted = end_to_end.windows(end_to_end.read_metrics(run_dir), warm_up, window)
        found = end_to_end.summary(counted)
        speed = found["frames_per_second"]["median"]
        busy = {name: cost * speed / 1e6 for name, cost in found["us_per_frame"].items()}
        rows = [
            ("frames/s", f"{speed:,.0f} ({found['windows']} windows of {window:g} s)"),
            (
                "utilisation",
                f"learner {busy['update']:.0%}, policy worker {busy['inference']:.0%}, actors {busy['engine']:.0%}",
            ),
            ("doctor --plan", "--gpu-us {inference:.1f} {update:.1f}".format(**found["us_per_frame"])),
        ]
        if watch.samples:
            percent, used = zip(*watch.samples[int(warm_up) :] or watch.samples, strict=True)
            rows.append(("GPU", f"{statistics.mean(percent):.0f} % busy, {max(used):,.0f} MiB at most"))
        return rows

    return measure


PARTS: dict[str, Part] = {
    "kernels equal their references": Part(CPU, 150, kernels),
    "the device path equals the CPU's": Part(GPU, 120, device_path),
    "mixture, forward and backward": Part(GPU, 60, mixture),
    "inference": Part(CPU, 40, inference("none")),
    "inference, CUDA graphs": Part(GPU, 40, inference("cuda_graphs")),
    "inference, compiled": Part(GPU, 90, inference("compile")),
    "update, float32": Part(CPU, 40, update()),
    "update, bfloat16": Part(GPU, 40, update("learner.precision=bfloat16")),
    "update, compiled": Part(GPU, 90, update("learner.compile=true")),
    "run, CPU alone": Part(CPU, 80, whole_run("runtime.device=cpu")),
    "run, GPU": Part(GPU, 80, whole_run("runtime.device=cuda")),
    "run, GPU, CUDA graphs": Part(GPU, 80, whole_run("runtime.device=cuda", "runtime.policy_graphs=cuda_graphs")),
    "run, GPU, CUDA graphs, bfloat16": Part(
        GPU, 80, whole_run("runtime.device=cuda", "runtime.policy_graphs=cuda_graphs", "learner.precision=bfloat16")
    ),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a part: rows, or a line that says why there are none."""

    part: str
    rows: list[Row]
    said: str = ""
    failed: bool = False


def attempt(name: str, has_gpu: bool, remaining: float, quick: bool) -> Outcome:
    """Runs a part in a process of its own, for at most its limit and what remains."""
    part = PARTS[name]
    if part.needs == GPU and not has_gpu:
        return Outcome(name, [], NO_GPU)
    limit = min(part.limit, remaining)
    if limit < part.limit / 2:
        return Outcome(name, [], f"did not run: only {max(0.0, remaining):.0f} s were left")
    command = [sys.executable, __file__, "--part", name, *(["--quick"] if quick else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        said, complained = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 15)  # with the runs that it has started
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()
        return Outcome(name, [], f"FAILED: not done within {limit:.0f} s", failed=True)
    if process.returncode:
        words = (complained.strip().splitlines() or ["it said nothing"])[-1]
        return Outcome(name, [], f"FAILED: {words[:300]}", failed=True)
    return Outcome(name, [(what, figure) for what, figure in json.loads(said.splitlines()[-1])])


def table(outcomes: list[Outcome]) -> str:
    """A row a figure, as Markdown; a part without any has one that says why."""
    lines = ["| part | what | figure |", "|---|---|---|"]
    for outcome in outcomes:
        rows = outcome.rows or [("", outcome.said)]
        lines += [f"| {outcome.part if i == 0 else ''} | {what} | {said} |" for i, (what, said) in enumerate(rows)]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu_check")
    parser.add_argument("--minutes", type=float, default=7.5, help="for all parts together")
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it runs, not how fast")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part].run(arguments.quick)))
        return 0
    deadline = time.monotonic() + 60 * arguments.minutes
    about, has_gpu = results.machine(), gpu()
    outcomes = []
    for name in PARTS:
        began = time.monotonic()
        outcomes.append(attempt(name, has_gpu, deadline - began, arguments.quick))
        print(f"{time.monotonic() - began:5.0f} s  {name}  {outcomes[-1].said}", file=sys.stderr, flush=True)
    where = [about["cpu"], f"{about['cores']} cores", gpu_name() if has_gpu else "no GPU"]
    page = f"{', '.join(where)}, torch {about['versions']['torch']}\n\n{table(outcomes)}\n"
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "gpu_check.md").write_text(page)
    raw = {
        "machine": about,
        "gpu": has_gpu,
        "quick": arguments.quick,
        "parts": [dataclasses.asdict(o) for o in outcomes],
    }
    (arguments.out / "gpu_check.json").write_text(json.dumps(raw, indent=1) + "\n")
    print(page)
    return 1 if any(outcome.failed for outcome in outcomes) else 0 if has_gpu else 3


def gpu_name() -> str:
    import torch

    device = torch.cuda.get_device_properties(0)
    return f"{device.name}, {device.total_memory / 2**30:.0f} GiB"


if __name__ == "__main__":
    sys.exit(main())
