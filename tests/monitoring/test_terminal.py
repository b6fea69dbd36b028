"""The console in a real terminal of 80 columns and 24 lines: drawn, redrawn in place, and given back after Ctrl-C."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pexpect
from waiting import PATIENCE

_LONG = ("env.max_episode_steps=60", "runtime.mode=inline", *(
    f"phases.{name}.until.frames={2_000_000 + index}"
    for index, name in enumerate(("warmup", "transition", "finetune", "deep_finetune"))
))  # fmt: skip


def test_a_run_draws_one_screen_and_gives_the_terminal_back(tmp_path: Path) -> None:
    words = ["-m", "polybeast_moe", "train", "debug", "--run-dir", str(tmp_path / "run"), *_LONG]
    child = pexpect.spawn(sys.executable, words, dimensions=(24, 80), encoding="utf-8", timeout=PATIENCE)
    child.logfile_read = io.StringIO()
    for _ in range(3):
        child.expect("scores and returns: last 100 episodes")
    child.sendintr()
    child.expect("Go on with: polybeast-moe resume")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130

    shown = child.logfile_read.getvalue()
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor hidden once, and shown again
    assert shown.rindex("\x1b[?25h") > shown.rindex("polybeast_moe ─")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "\n")
    assert max(map(len, plain.split("\n"))) <= 80 + len(str(tmp_path))  # but for the path that it names at the end
    screens = re.findall(r"╭.*?╯", plain, re.DOTALL)
    assert len(screens) >= 3
    assert all(len([line for line in screen.split("\n") if line]) <= 23 for screen in screens)
    assert "warmup, temperature 1.0000" in screens[-1]
