"""The console is calm in a terminal, readable in a log, and always gives the terminal back."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace

import pytest
from rich.console import Console as RichConsole

from polybeast_moe.monitoring.console import Console
from polybeast_moe.monitoring.screen import WHO, clock_text, status_line, status_screen
from polybeast_moe.monitoring.status import Status, TimeLeft

STATUS = Status(
    frames=123_456_789, episodes=1_234_567, fraction=0.5, wall_seconds=123_456.0, phase="deep_finetune",
    phase_fraction=1.0, routing="sparsemax", router_temperature=0.4321, learning_rate=1.25e-5,
    frames_per_second=123_456.0, part_shares={"engine": 0.2, "inference": 0.3, "update": 0.5}, mean_score=1234.5,
    median_score=1234.0, alpha_entropy=0.4, usage_entropy=1.3, routing_information=0.9,
    expert_shares={"survival": 1.0, "combat": 0.0}, losses={"total": -1.5, "policy": -2.0}, memory_bytes=2**33,
    snapshot_age_seconds=29.0,
)  # fmt: skip
YOUNG = Status(0, 0, 0.0, 0.0, "warmup", 0.0, "softmax", 1.0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def terminal(encoding: str = "utf-8", width: int = 80) -> RichConsole:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return RichConsole(file=file, force_terminal=True, width=width, height=40, color_system=None)


def written(console: RichConsole) -> str:
    console.file.flush()
    return console.file.buffer.getvalue().decode(console.encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [STATUS, YOUNG], ids=["late", "first"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [80, 132])
def test_the_screen_fits_80_columns_in_any_encoding(status: Status, encoding: str, width: int) -> None:
    console = terminal(encoding, width)
    console.print(status_screen(status, 123_456.0))
    lines = written(console).splitlines()
    assert {len(line) for line in lines} <= {0, 80}
    assert not any(line.endswith(mark) for line in lines for mark in ("…|", "…│"))


def test_the_screen_tells_what_the_status_holds() -> None:
    console = terminal()
    console.print(status_screen(STATUS, 3661.0))
    text = written(console)
    for fact in (
        "123,456,789",
        "left 1:01:01, ran 1d 10:17:36",
        "deep_finetune, temperature 0.4321",
        "sparsemax, lr 1.25e-05",
        "1234.5 mean, 1234 median",
    ):
        assert fact in text
    for fact in (
        "0.400 nats",
        "1.300 nats",
        "0.900 nats",
        "8,192 MiB",
        "29 s old",
        "survival",
        "100.0 %",
        "policy -2.000",
    ):
        assert fact in text


def test_everybody_waits_for_the_busiest() -> None:
    def notes(status: Status) -> list[str]:
        console = terminal()
        console.print(status_screen(status, None))
        lines = [line for line in written(console).splitlines() if any(f"│ {who}" in line for who in WHO.values())]
        return [line.partition("%")[2].strip(" │") for line in lines]

    assert notes(STATUS) == ["waits for the learner", "waits for the learner", "sets the pace"]
    even = replace(STATUS, part_shares={"engine": 0.50, "inference": 0.97, "update": 0.96})
    assert notes(even) == ["waits for the policy worker", "sets the pace", "sets the pace"]
    assert notes(replace(STATUS, parts_take_turns=True)) == ["", "", ""]
    assert notes(YOUNG) == ["", "", ""]


def test_the_screen_keeps_its_height() -> None:
    heights = set()
    for status in (replace(YOUNG, expert_shares={"survival": 0.5, "combat": 0.5}), STATUS):
        console = terminal()
        console.print(status_screen(status, None))
        heights.add(written(console).count("\n"))
    assert len(heights) == 1
    assert heights.pop() <= 23  # beneath the last line above it, in a terminal of 24 lines


def test_a_log_line_tells_of_restarts_once_there_are_some() -> None:
    assert "restarts" not in status_line(replace(STATUS, restarts=0), None)
    assert status_line(replace(STATUS, restarts=2), None).endswith("| restarts 2")


def test_a_log_gets_one_plain_line_every_ten_seconds() -> None:
    clock, file = Clock(), io.StringIO()
    with Console(RichConsole(file=file), clock) as console:
        for second in range(25):
            clock.now = float(second)
            console.update(replace(STATUS, frames=second))
            if second == 3:
                console.log("phase warmup ends [after] 3 s")
    lines = file.getvalue().splitlines()
    assert lines[1] == "phase warmup ends [after] 3 s"
    shown = [line.split("frames ")[1].split(" ")[0] for line in lines if line != lines[1]]
    assert shown == ["0", "10", "20", "24"]  # the last state is shown at the end
    assert file.getvalue().isascii()
    assert "\x1b" not in file.getvalue()


def test_lines_that_the_log_cannot_encode_are_still_written() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(RichConsole(file=file)).log("τ → 0.5")
    assert file.buffer.getvalue() == b"? ? 0.5\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_terminal_comes_back_after_an_exception(error: type[BaseException]) -> None:
    rich_console = terminal()
    console = Console(rich_console)

    def run() -> None:
        with console:
            console.update(STATUS)
            console.log("a line above")
            raise error

    with pytest.raises(error):
        run()
    console.stop()
    text = written(rich_console)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor hidden once, and shown again
    assert "a line above" in text


def test_a_terminal_is_redrawn_at_most_four_times_a_second() -> None:
    clock, rich_console = Clock(), terminal()
    with Console(rich_console, clock) as console:
        for tick in range(1000):
            clock.now = tick / 1000
            console.update(STATUS)
    assert written(rich_console).count("polybeast_moe") <= 4 + 2


def test_time_left_follows_the_speed_of_the_last_minute() -> None:
    left = TimeLeft(window_seconds=60.0)
    assert left.read(0.0, 0.0) is None
    assert left.read(0.25, 10.0) == pytest.approx(30.0)
    for second in range(11, 200):
        estimate = left.read(0.25 + (second - 10) / 1000, float(second))
    assert estimate == pytest.approx((1 - 0.439) * 1000)
    assert TimeLeft().read(0.5, 5.0) is None


def test_a_status_takes_its_figures_from_a_row() -> None:
    row = {
        "frames": 10, "episodes": 2, "wall_seconds": 3.0, "phase": "warmup", "routing": "softmax",
        "router_temperature": 1.0, "loss_total": 0.5, "engine_share": 0.2, "expert_combat_share": 0.6,
        "mean_episode_score": 4.0,
    }  # fmt: skip
    status = Status.from_row(row, ("combat", "general"), fraction=0.1, phase_fraction=0.4, median_score=3.0)
    assert status.losses == {"total": 0.5}
    assert status.part_shares == {"engine": 0.2}
    assert status.expert_shares == {"combat": 0.6, "general": 0.0}
    assert (status.mean_score, status.median_score, status.alpha_entropy) == (4.0, 3.0, None)
    assert status_line(status, None).startswith(" 10.0 % | after 0:00:03 | frames 10 |")


def test_durations_read_as_clocks() -> None:
    assert [clock_text(seconds) for seconds in (0.4, 3661, 90_000)] == ["0:00:00", "1:01:01", "1d 1:00:00"]


def test_a_log_file_on_a_full_disk_stops_nothing() -> None:
    with open("/dev/full", "w") as file:  # noqa: PTH123
        console = Console(RichConsole(file=file))
        console.log("no snapshot: [Errno 28] No space left on device")
        console.update(STATUS)
        console.stop()
        with contextlib.suppress(OSError):
            file.close()  # whose flush fails like every other
