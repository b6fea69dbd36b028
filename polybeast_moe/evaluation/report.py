"""`report`: one self-contained HTML page, a Markdown twin and PNG plots, made from a run's own files alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from polybeast_moe.evaluation.report_comparison import comparison_sections
from polybeast_moe.evaluation.report_data import read_run
from polybeast_moe.evaluation.report_page import write_page
from polybeast_moe.evaluation.report_sections import run_sections
from polybeast_moe.evaluation.report_text import print_phase_table
from polybeast_moe.evaluation.tables import PhaseRow, phase_table

__all__ = ["PhaseRow", "phase_table", "print_phase_table", "write_comparison", "write_report"]


def write_report(run_dir: Path) -> Path:
    """Writes `report/index.html`, `report/report.md` and `report/*.png` of a run, finished or not.

    Returns the path of the page. Raises UserError if the directory holds no run or names an unknown target.
    """
    run = read_run(run_dir)
    return write_page(run_dir / "report", f"Run {run.name}", run_sections(run))


def write_comparison(run_dirs: Sequence[Path], folder: Path | None = None) -> Path:
    """Writes a page that holds several runs side by side; the first is what the others are compared with.

    It goes into `folder`, by default `report/comparison` of the first run; nothing else is written. Returns the path
    of the page. Raises UserError if a directory holds no run.
    """
    runs = [read_run(run_dir) for run_dir in run_dirs]
    title = "Runs " + ", ".join(run.name for run in runs)
    return write_page(folder or run_dirs[0] / "report" / "comparison", title, comparison_sections(runs))
