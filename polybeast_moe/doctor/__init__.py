"""What this machine has, what a run would use of it and why, and what to do about problems."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from polybeast_moe.doctor.finding import Finding
from polybeast_moe.doctor.machine import machine_findings
from polybeast_moe.doctor.self_test import self_tests

__all__ = ["Finding", "examine"]


def examine(self_test: bool = False, console: Console | None = None) -> bool:
    """Prints every finding, and with `self_test` what engine, kernels and processes do; returns whether all is well.

    Imports torch. A warning is no failure: all is well if a run would go.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    found = []
    for finding in machine_findings():
        _show(console, finding)
        found.append(finding)
    if self_test:
        console.print("\nself-test, some seconds:")
        for test in self_tests():
            finding = test()
            _show(console, finding)
            found.append(finding)
    return all(finding.state != "failed" for finding in found)


_MARKS = {"good": ("ok", "green"), "warning": ("!", "yellow"), "failed": ("FAILED", "bold red"), "fact": ("", "")}


def _show(console: Console, finding: Finding) -> None:
    mark, style = _MARKS[finding.state]
    table = Table.grid(padding=(0, 1))
    table.add_column(width=6)
    table.add_column(width=13, no_wrap=True)
    table.add_column()
    table.add_row(Text(mark, style=style), finding.name, finding.what)
    if finding.advice:
        table.add_row("", "", Text(f"-> {finding.advice}", style=style))
    console.print(table)
