"""What rich draws, as an SVG file that needs no network."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console, RenderableType
from rich.terminal_theme import MONOKAI


def draw(shown: RenderableType, width: int, title: str, output: Path) -> None:
    """Writes `shown` as a terminal of `width` columns has it."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(shown)
    svg = console.export_svg(title=title, theme=MONOKAI)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(re.sub(r"@font-face\s*\{[^}]*\}", "", svg))  # no requests to other hosts
