"""Has something become slower? Ratios of a few minutes, held against those in docs/results. `make benchmark-quick`.

    python benchmarks/quick.py                      # four minutes; exit code 1: a regression, 2: no measurement
    python benchmarks/quick.py --margin 0.15 --steps engine graph

Every figure is a ratio of this project to something else on the same machine, more is better, and the stored one is of
docs/results/*.json. A median below the stored one by more than the margin is a regression. The margin is wide because
the windows are short; what is found here is to be measured again by the benchmark itself. No peer's environment is
needed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import engine
import pipeline_results
import results
from results import Measured, spread

MARGIN = 0.25
GAMES = 32
STEPS: dict[str, list[str]] = {
    "engine": ["engine.py", "--games", str(GAMES), "--rounds", "3", "--seconds", "1.5"],
    "modes": ["end_to_end.py", "--rounds", "2", "--seconds", "10", "--warm-up", "6"]
    + [word for name, settings in pipeline_results.INLINE.items() for word in ("--variant", f"{name}={settings}")],
    "ops": ["ops.py", "--rounds", "9", "--threads", "1", "--experts", "4"],
    "graph": ["graph.py", "--repeats", "1"],
}
GRAPH = {"graph_per_pattern": "PyG, repeats removed", "graph_in_all": "PyG, every row"}


class Verdict(NamedTuple):
    """One figure beside the stored one."""

    name: str
    measured: float
    stored: float | None
    share: float | None
    """Measured over stored; None where nothing is stored."""
    regression: bool


def of_engine(figures: Mapping[str, Any]) -> dict[str, Measured]:
    """Ratios of engine.py's rates, as JSON has them."""
    rates = figures["rates"][str(GAMES)]
    return {
        name: spread(engine.ratios_of(rates, over, under))
        for name, (games, over, under) in engine.GOALS.items()
        if games == GAMES
    }


def of_modes(figures: Mapping[str, Any]) -> dict[str, Measured]:
    """The asynchronous mode over the better inline one, round by round."""
    return {"async_over_inline": pipeline_results.async_over_inline(figures["variants"])}


def of_ops(figures: Mapping[str, Any]) -> dict[str, Measured]:
    """What ops.py makes of its figures."""
    return {name: Measured(*figure) for name, figure in figures["goals"].items()}


def of_graph(figures: Mapping[str, Any]) -> dict[str, Measured]:
    """Of random play, the only one that needs no trained policy."""
    factors = figures["raw"]["random"]["factors"]
    return {name: Measured(*factors[form]) for name, form in GRAPH.items()}


READERS = {"engine": of_engine, "modes": of_modes, "ops": of_ops, "graph": of_graph}


def stored(folder: Path = results.RESULTS) -> dict[str, float]:
    """Figures of the pages that there are, by the goals' names; of the graph those of random play."""
    found = {}
    for page in ("engine", "pipeline", "ops", "graph"):
        file = folder / f"{page}.json"
        if not file.exists():
            continue
        kept = json.loads(file.read_text())
        found |= {goal["name"]: goal["measured"] for goal in kept["goals"] if goal["measured"] is not None}
        if page == "graph" and "random" in kept["raw"]:
            found |= {name: figure.value for name, figure in of_graph(kept).items()}
    return found


def compare(measured: Mapping[str, Measured], known: Mapping[str, float], margin: float) -> list[Verdict]:
    """Every measured figure beside the stored one."""
    found = []
    for name, figure in measured.items():
        before = known.get(name)
        share = figure.value / before if before else None
        found.append(Verdict(name, figure.value, before, share, share is not None and share < 1 - margin))
    return found


def run_step(step: str) -> dict[str, Measured]:
    """Measures one step in a process of its own."""
    script, *arguments = STEPS[step]
    print(f"{step}: python benchmarks/{script} {' '.join(arguments)}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "figures.json"
        command = [sys.executable, str(Path(__file__).with_name(script)), *arguments, "--json", str(file)]
        subprocess.run(command, check=True, cwd=results.ROOT, stdout=subprocess.DEVNULL)
        return READERS[step](json.loads(file.read_text()))


def show(verdicts: list[Verdict], margin: float) -> None:
    """Prints a line a figure."""
    print(f"{'figure':24s}{'now':>9s}{'stored':>9s}{'share':>8s}")
    for name, now, before, share, regression in verdicts:
        known = f"{before:9.2f}{share:8.0%}" if before is not None and share is not None else f"{'-':>9s}{'-':>8s}"
        print(f"{name:24s}{now:9.2f}{known}{'  slower by more than ' + format(margin, '.0%') if regression else ''}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument(
        "--margin", type=float, default=MARGIN, help="how much less than the stored ratio is a regression"
    )
    arguments = parser.parse_args()
    measured: dict[str, Measured] = {}
    try:
        for step in arguments.steps:
            measured |= run_step(step)
    except subprocess.CalledProcessError as failure:
        print(f"quick: {step} could not be measured (exit code {failure.returncode}); see above", file=sys.stderr)
        return 2
    verdicts = compare(measured, stored(), arguments.margin)
    show(verdicts, arguments.margin)
    return int(any(verdict.regression for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
