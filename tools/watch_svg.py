"""Draws one moment of `polybeast-moe watch` as an SVG for the documentation.

    python tools/watch_svg.py runs/first docs/images/watch.svg --seed 1 --episode 0 --step 100

The game, and what the policy makes of it, are those of `polybeast-moe watch runs/first --seed 1 --episode 0`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from svg import draw

from polybeast_moe.evaluation.agent import load_policy
from polybeast_moe.evaluation.watch import Pace
from polybeast_moe.evaluation.watch_frames import played
from polybeast_moe.evaluation.watch_screen import COLUMNS, PANEL, screen

WIDTH, HEIGHT = COLUMNS + PANEL + 2, 27


def main() -> None:
    """Reads the arguments and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("snapshot")
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--episode", type=int, default=0)
    parser.add_argument("--step", type=int, default=100, help="of the episode, or its last one")
    arguments = parser.parse_args()
    for frame in played(load_policy(arguments.snapshot), arguments.seed, arguments.episode):
        if frame.step >= arguments.step or frame.ended:
            break
    title = f"polybeast-moe watch {Path(arguments.snapshot).name}"
    draw(screen(frame, str(Pace(8.0)), WIDTH, HEIGHT), WIDTH, title, arguments.output)


if __name__ == "__main__":
    main()
