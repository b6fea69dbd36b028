"""A frame of a game as rich draws it: NetHack's terminal in its own colours, and what the policy makes of it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text

from polybeast_moe.evaluation.watch_frames import Frame, Opinion
from polybeast_moe.monitoring.screen import COLOURS

ROWS, COLUMNS = 24, 80  # NetHack's terminal
PANEL = 38  # columns of what stands beside it
_TOP_ACTIONS = 5
_NO_COLOUR = 8  # color.h


def screen(frame: Frame, status: str, width: int, height: int) -> RenderableType:
    """Returns what is shown in a terminal of that size; `status` says speed and keys.

    The panel stands beside the game where there is room, else below; where there is none, the game stands alone.
    """
    game = terminal(frame)
    if width >= COLUMNS + PANEL + 2:
        beside = Table.grid()
        beside.add_column(width=COLUMNS + 1)
        beside.add_column(width=PANEL)
        beside.add_row(game, panel(frame, PANEL, height - 2))
        return Group(beside, Text(status, style="dim", no_wrap=True, overflow="crop"))
    if height >= ROWS + 14:
        return Group(game, panel(frame, min(width, COLUMNS), height - ROWS - 1), Text(status, no_wrap=True))
    return Group(game, Text(f"{_line(frame)}  {status}", no_wrap=True, overflow="crop")) if height > ROWS else game


def terminal(frame: Frame) -> Text:
    """NetHack's screen, 24 lines of 80."""
    text = Text(no_wrap=True, overflow="crop")
    for row in range(ROWS):
        for column in range(COLUMNS):
            char = chr(frame.chars[row, column])
            style = style_of(int(frame.colours[row, column]), (row, column) == frame.cursor)
            text.append(char if char.isprintable() else " ", style)
        text.append("\n" if row < ROWS - 1 else "")
    return text


def style_of(colour: int, cursor: bool = False) -> Style:
    """NetHack's colours 0 to 15 as a terminal has them: the upper half is the lower one, bright; 8 is no colour."""
    if colour == _NO_COLOUR:
        return Style(reverse=cursor)
    names = ("bright_black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
    name = names[colour & 7]
    return Style(color=name if colour < 8 else f"bright_{name}", reverse=cursor)


def panel(frame: Frame, width: int, height: int) -> Panel:
    """What the policy makes of the frame, at most `height` lines."""
    head = Text(no_wrap=True, overflow="crop")
    head.append(f"step {frame.step}  turn {frame.turn}  score {frame.score}\n")
    head.append(f"return {frame.total:.2f}  scene ")
    head.append(frame.scene, style="bold")
    parts: list[RenderableType] = [head]
    if frame.ended:
        parts.append(Text(f"over: {frame.ended}", style="bold reverse"))
    if frame.opinion is not None:
        parts += _opinion(frame.opinion, frame.action, width - 4, height - 16)
    elif frame.action is not None:
        parts.append(Text(f"action {frame.action}"))
    return Panel(Group(*parts), title=frame.title, width=width, height=min(height, 30), padding=(0, 1))


def _opinion(opinion: Opinion, action: str | None, width: int, lines: int) -> list[RenderableType]:
    bars = Text(no_wrap=True, overflow="crop")
    for index, (name, weight) in enumerate(opinion.experts.items()):
        bars.append(f"\n{name[:12]:<12}{weight:5.2f} ")
        bars.append("█" * round(weight * (width - 19)), style=COLOURS[index % len(COLOURS)])
    value = Text(f"\nvalue {opinion.value:.3f}")
    actions = Text(no_wrap=True, overflow="crop")
    for name, probability in opinion.actions[:_TOP_ACTIONS]:
        actions.append(f"{'>' if name == action else ' '} {name:<10}{probability:5.2f} ")
        actions.append("█" * round(probability * (width - 19)) + "\n", style="dim")
    chosen = dict(opinion.actions).get(action or "", 0.0)
    taken = Text(f"takes {action} ({chosen:.2f})" if action is not None else "")
    lit = Text("\n" + ", ".join(opinion.conditions), style="dim", overflow="ellipsis")
    return [bars, value, actions, taken, lit] if lines > 0 else [bars, value, actions]


def _line(frame: Frame) -> str:
    """The panel in one line."""
    experts = frame.opinion.experts if frame.opinion is not None else {}
    weights = " ".join(f"{name[:4]} {weight:.2f}" for name, weight in experts.items())
    return f"{frame.scene} {weights} {frame.action or frame.ended}"
