"""A run's state as a screen of 80 columns or as one plain line."""

from __future__ import annotations

from datetime import timedelta

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from polybeast_moe.monitoring.status import Status

WIDTH = 80
# Okabe and Ito (2008), "Color universal design": told apart with every common kind of colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
WHO = {"engine": "engine", "inference": "policy worker", "update": "learner"}
_LOSSES = ("policy", "baseline", "entropy")
_PACE = 0.95  # as busy as this share of the busiest: nobody to wait for


def status_line(status: Status, seconds_left: float | None) -> str:
    """Returns the run's state as one plain line of ASCII."""
    left = (
        f"left {clock_text(seconds_left)}" if seconds_left is not None else f"after {clock_text(status.wall_seconds)}"
    )
    parts = [
        f"{100 * status.fraction:5.1f} %",
        left,
        f"frames {status.frames:,}",
        f"episodes {status.episodes:,}",
        f"{status.phase} ({status.routing}, temperature {status.router_temperature:.3g})",
        f"{_number(status.frames_per_second, ',.0f')} frames/s",
        f"score mean {_number(status.mean_score, '.1f')} median {_number(status.median_score, '.0f')}",
        f"alpha entropy {_number(status.alpha_entropy, '.3f')}",
        f"usage entropy {_number(status.usage_entropy, '.3f')}",
    ]
    if status.restarts:
        parts.append(f"restarts {status.restarts}")
    return " | ".join(parts)


def status_screen(status: Status, seconds_left: float | None) -> RenderableType:
    """Returns the live screen, at most 80 columns wide and of a height that never changes during a run."""
    left = "estimating" if seconds_left is None else f"left {clock_text(seconds_left)}"
    temperature = f"{status.phase}, temperature {status.router_temperature:.4f}"
    body = Group(
        _bar("run", status.fraction, f"{left}, ran {clock_text(status.wall_seconds)}", COLOURS[0]),
        _bar("phase", status.phase_fraction, temperature, COLOURS[2]),
        Text(""),
        *(_bar(who, status.part_shares.get(part), _waits(status, part), COLOURS[5]) for part, who in WHO.items()),
        Text(""),
        _facts(status),
        _losses(status),
        Text(""),
        *(
            _bar(name, share, "", COLOURS[index % len(COLOURS)])
            for index, (name, share) in enumerate(status.expert_shares.items())
        ),
    )
    footer = "scores and returns: last 100 episodes"
    return Panel(body, title="polybeast_moe", subtitle=footer, width=WIDTH, padding=(0, 1), subtitle_align="right")


def clock_text(seconds: float) -> str:
    """Returns a duration as ``1:02:03``, or ``4d 1:02:03``."""
    days, rest = divmod(round(seconds), 86_400)
    return f"{days}d " * (days > 0) + str(timedelta(seconds=rest))


def _waits(status: Status, part: str) -> str:
    """Who a part waits for: the busiest sets the pace, and whoever is less busy waits for it."""
    shares = status.part_shares
    if part not in shares or status.parts_take_turns:
        return ""
    busiest = max(shares, key=lambda name: shares[name])
    if shares[part] >= _PACE * shares[busiest]:
        return "sets the pace"
    return f"waits for the {WHO[busiest]}"


def _bar(name: str, fraction: float | None, note: str, colour: str) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_column(width=13, no_wrap=True, overflow="crop")
    row.add_column(width=20)
    row.add_column(width=7, justify="right")
    row.add_column(width=33, no_wrap=True, overflow="crop")
    filled = min(max(fraction or 0.0, 0.0), 1.0)
    bar = ProgressBar(total=1.0, completed=filled, complete_style=colour, finished_style=colour)
    percent = "-" if fraction is None else f"{100 * fraction:.1f} %"
    row.add_row(Text(name, overflow="crop"), bar, percent, Text(note, overflow="crop"))
    return row


def _facts(status: Status) -> Table:
    """Names and values in two columns."""
    table = Table.grid(padding=(0, 1))
    for width, style in ((13, "dim"), (20, ""), (13, "dim"), (26, "")):
        table.add_column(width=width, style=style, no_wrap=True, overflow="crop")
    run = [
        ("frames", f"{status.frames:,}"),
        ("episodes", f"{status.episodes:,}"),
        ("frames/s", _number(status.frames_per_second, ",.0f")),
        ("policy lag", _with_unit(status.policy_lag, ".1f", "updates")),
        ("memory", "-" if status.memory_bytes is None else f"{status.memory_bytes / 2**20:,.0f} MiB"),
        ("restarts", _number(status.restarts, "d")),
        ("snapshot", "none yet" if status.snapshot_age_seconds is None else f"{status.snapshot_age_seconds:.0f} s old"),
    ]
    policy = [
        ("score", f"{_number(status.mean_score, '.1f')} mean, {_number(status.median_score, '.0f')} median"),
        ("return", f"{_number(status.mean_return, '.1f')} mean, {_number(status.median_return, '.1f')} median"),
        ("alpha entropy", _with_unit(status.alpha_entropy, ".3f", "nats")),
        ("usage entropy", _with_unit(status.usage_entropy, ".3f", "nats")),
        ("information", _with_unit(status.routing_information, ".3f", "nats")),
        ("policy entr.", _with_unit(status.policy_entropy, ".3f", "nats")),
        ("routing", f"{status.routing}, lr {_number(status.learning_rate, '.3g')}"),
    ]
    for (name, value), (other, its_value) in zip(run, policy, strict=True):
        table.add_row(name, value, other, its_value)
    return table


def _losses(status: Status) -> Table:
    """The losses on one line, with their weights."""
    row = Table.grid(padding=(0, 1))
    row.add_column(width=13, style="dim")
    row.add_column(width=62, no_wrap=True, overflow="crop")
    parts = [f"{name} {_number(status.losses.get(name), '.3f')}" for name in _LOSSES]
    other = sum(value for name, value in status.losses.items() if name not in (*_LOSSES, "total"))
    parts.append(f"other {other:.3f}" if status.losses else "other -")
    row.add_row("losses", Text("  ".join(parts), overflow="crop"))
    return row


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _with_unit(value: float | None, form: str, unit: str) -> str:
    return "-" if value is None else f"{value:{form}} {unit}"
