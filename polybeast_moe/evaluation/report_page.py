"""A report as sections, written as one self-contained HTML page, a Markdown twin and PNG plots."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polybeast_moe.evaluation.report_text import Grid, html_table, markdown_table
from polybeast_moe.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 130


@dataclass(frozen=True)
class Picture:
    """A plot: its file's name without the ending, what it shows, and the function that draws it."""

    name: str
    caption: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Section:
    """A part of a report: a heading, paragraphs, tables, plots, and text that is shown on demand."""

    title: str
    paragraphs: Sequence[str] = ()
    grids: Sequence[Grid] = ()
    pictures: Sequence[Picture] = ()
    appendix: str | None = None

    @property
    def anchor(self) -> str:
        """The section's name in a link."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def write_page(folder: Path, title: str, sections: Sequence[Section]) -> Path:
    """Writes `index.html`, `report.md` and the plots into `folder`, each file at once; returns the page's path."""
    images = {picture.name: _png(picture.draw()) for section in sections for picture in section.pictures}
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        replace_file(folder / f"{name}.png", image)
    replace_file(folder / "report.md", _markdown(title, sections).encode())
    page = folder / "index.html"
    replace_file(page, _html(title, sections, images).encode())
    return page


def _png(figure: Figure) -> bytes:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=DOTS_PER_INCH)
    return image.getvalue()


def _markdown(title: str, sections: Sequence[Section]) -> str:
    parts = [f"# {title}\n"]
    for section in sections:
        parts.append(f"## {section.title}\n")
        parts += [f"{paragraph}\n" for paragraph in section.paragraphs]
        parts += [markdown_table(grid) for grid in section.grids]
        parts += [f"![{section.title}]({picture.name}.png)\n\n{picture.caption}\n" for picture in section.pictures]
        if section.appendix is not None:
            parts.append(f"```\n{section.appendix}\n```\n")
    return "\n".join(parts)


def _html(title: str, sections: Sequence[Section], images: dict[str, bytes]) -> str:
    links = " · ".join(f'<a href="#{section.anchor}">{html.escape(section.title)}</a>' for section in sections)
    body = [f"<nav>{links}</nav>"]
    for section in sections:
        body.append(f'<section id="{section.anchor}"><h2>{html.escape(section.title)}</h2>')
        body += [f"<p>{html.escape(paragraph)}</p>" for paragraph in section.paragraphs]
        body += [html_table(grid) for grid in section.grids]
        for picture in section.pictures:
            source = base64.b64encode(images[picture.name]).decode()
            body.append(
                f'<figure><img alt="{html.escape(picture.caption)}" src="data:image/png;base64,{source}">'
                f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
            )
        if section.appendix is not None:
            body.append(f"<details><summary>show</summary><pre>{html.escape(section.appendix)}</pre></details>")
        body.append("</section>")
    return _PAGE.replace("{title}", html.escape(title)).replace("{body}", "\n".join(body))


_PAGE = """<!doctype html>
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
nav { font-size: .9rem; line-height: 1.8; }
a { color: #005a8c; }
p, figcaption { max-width: 48rem; }
.table { overflow-x: auto; margin-bottom: 1rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
thead th { border-bottom: 2px solid #444; white-space: normal; vertical-align: bottom; }
th:first-child { font-weight: 600; }
th.text, td.text { text-align: left; }
td.long { white-space: normal; min-width: 14rem; }
td.met { color: #005a8c; font-weight: 600; }
td.met::before { content: "✓ "; }
td.missed { color: #a84300; font-weight: 600; }
td.missed::before { content: "✗ "; }
figure { margin: 1rem 0; break-inside: avoid; }
img { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: .9rem; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .85rem; }
@media print { nav { display: none; } h2 { break-after: avoid; } body { margin: 0; max-width: none; }
  table { font-size: .75rem; } th, td { padding: .2rem .4rem; } }
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
