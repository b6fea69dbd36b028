"""`report`: one self-contained HTML page, a Markdown twin and PNG figures, made from a run's own files alone."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polybeast_moe.evaluation.figures import figures
from polybeast_moe.evaluation.report_data import RunData, read_run
from polybeast_moe.evaluation.report_text import (
    Grid,
    bucket_grid,
    html_table,
    markdown_table,
    phase_grid,
    plus_minus,
    print_phase_table,
    verdict_grid,
)
from polybeast_moe.evaluation.tables import RANDOM_POLICY, PhaseRow, phase_rows, phase_table, row_spans, verdicts

__all__ = ["PhaseRow", "phase_table", "print_phase_table", "write_report"]

DOTS_PER_INCH = 130


@dataclass(frozen=True)
class _Section:
    """A part of the report: a heading, paragraphs, a table, a figure as (name, caption)."""

    title: str
    paragraphs: Sequence[str] = ()
    grid: Grid | None = None
    figure: tuple[str, str] | None = None


def write_report(run_dir: Path) -> Path:
    """Writes `report/index.html`, `report/report.md` and `report/*.png` of a run, finished or not.

    Returns the path of the page. Raises UserError if the directory holds no run or names an unknown target.
    """
    run = read_run(run_dir)
    rows = phase_rows(run)
    drawn = {name: (caption, draw(run)) for name, (caption, draw) in figures(run).items()}
    sections = _sections(run, rows, {name: caption for name, (caption, _) in drawn.items()})
    report_dir = run_dir / "report"
    report_dir.mkdir(exist_ok=True)
    images = {}
    for name, (_, figure) in drawn.items():
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=DOTS_PER_INCH)
        images[name] = image.getvalue()
        _write(report_dir / f"{name}.png", images[name])
    _write(report_dir / "report.md", _markdown(run, sections).encode())
    page = report_dir / "index.html"
    _write(page, _html(run, sections, images).encode())
    return page


def _sections(run: RunData, rows: Sequence[PhaseRow], captions: dict[str, str]) -> list[_Section]:
    judged = verdicts(run, rows)
    pictures = {name: (name, caption) for name, caption in captions.items()}
    found = [_Section("Summary", _summary(run, rows, [verdict.result for verdict in judged]))]
    if judged:
        found.append(_Section("Targets", (), verdict_grid(judged)))
    found.append(_Section("Phases", (PHASE_NOTE,), phase_grid(rows)))
    titles = (("Score over time", "score"), ("Routing over time", "router"), ("Experts over time", "experts"))
    found += [_Section(title, (), None, pictures[name]) for title, name in titles if name in pictures]
    if "score_distribution" in pictures:
        note = "Each bucket holds its lower bound; the first also holds scores below zero."
        found.append(_Section("Score distribution", (note,), bucket_grid(run), pictures["score_distribution"]))
    return found


PHASE_NOTE = (
    "Score: the last in-game score before an episode's end. se: standard error of the mean, sd / sqrt(episodes). "
    "Entropies and routing information in nats, means over the phase weighted by frames: alpha entropy is the mean "
    "over states of H(alpha), usage entropy is H(mean alpha), routing information their difference. The random policy "
    "chooses actions uniformly, under the same protocol."
)


def _summary(run: RunData, rows: Sequence[PhaseRow], results: Sequence[str]) -> list[str]:
    frames, seconds = row_spans(run)
    task = run.config.get("env", {})
    lines = [
        f"{run.episodes.length:,} episodes and {int(frames.sum()):,} frames in {seconds.sum() / 60:.1f} minutes"
        + (f" on {task['task']} as {task['character']}" if {"task", "character"} <= task.keys() else "")
        + (f", seed {run.config['seed']}" if "seed" in run.config else "")
        + "."
    ]
    if results:
        unsure = len(results) - results.count("met") - results.count("missed")
        lines.append(
            f"Verdict: {results.count('met')} of {len(results)} targets met, {results.count('missed')} missed"
            + (f", {unsure} not judged for want of episodes." if unsure else ".")
        )
    else:
        lines.append("Verdict: none, the configuration sets no targets.")
    played = [row for row in rows if row.mean_score is not None and row.phase != RANDOM_POLICY]
    if played:
        lines.append(f"Mean score of the last phase played, {played[-1].phase}: {_mean_score(played[-1])}.")
        lines += [f"Mean score of the random policy: {_mean_score(row)}." for row in rows if row.phase == RANDOM_POLICY]
    return lines


def _mean_score(row: PhaseRow) -> str:
    return f"{plus_minus(row.mean_score, row.standard_error, '.1f')} (± standard error, {row.episodes:,} episodes)"


def _markdown(run: RunData, sections: Sequence[_Section]) -> str:
    parts = [f"# Run {run.name}\n"]
    for section in sections:
        parts.append(f"## {section.title}\n")
        parts += [f"{paragraph}\n" for paragraph in section.paragraphs]
        if section.grid is not None:
            parts.append(markdown_table(section.grid))
        if section.figure is not None:
            name, caption = section.figure
            parts.append(f"![{section.title}]({name}.png)\n\n{caption}\n")
    return "\n".join(parts)


def _html(run: RunData, sections: Sequence[_Section], images: dict[str, bytes]) -> str:
    body = []
    for section in sections:
        body.append(f"<section><h2>{html.escape(section.title)}</h2>")
        body += [f"<p>{html.escape(paragraph)}</p>" for paragraph in section.paragraphs]
        if section.grid is not None:
            body.append(html_table(section.grid))
        if section.figure is not None:
            name, caption = section.figure
            source = base64.b64encode(images[name]).decode()
            body.append(
                f'<figure><img alt="{html.escape(section.title)}" src="data:image/png;base64,{source}">'
                f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            )
        body.append("</section>")
    name = html.escape(run.name)
    return PAGE.replace("{title}", f"Run {name}").replace("{body}", "\n".join(body))


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 70rem; margin: 2rem auto;
  padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
p, figcaption { max-width: 48rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
thead th { border-bottom: 2px solid #444; white-space: normal; vertical-align: bottom; }
th:first-child { text-align: left; font-weight: 600; }
td.met { color: #005a8c; font-weight: 600; }
td.met::before { content: "✓ "; }
td.missed { color: #a84300; font-weight: 600; }
td.missed::before { content: "✗ "; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: .9rem; }
@media print { section { break-inside: avoid; } body { margin: 0; max-width: none; } }
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def _write(path: Path, content: bytes) -> None:
    """Replaces a file at once, so that a reader never sees half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(path)
