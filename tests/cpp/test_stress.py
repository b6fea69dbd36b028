"""The slot and turn protocol under stress (stress.cc), in threads under ThreadSanitizer, in processes under the others.

ThreadSanitizer sees no memory that processes share and no futex; it proves the order of plain reads and writes in
threads. What only processes can show (death between any two instructions) runs under AddressSanitizer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)  # sanitizers are slow, a busy machine is slow: stress.cc ends itself sooner

SOURCES = Path(__file__).parents[2] / "csrc"
FLAGS = ["-std=c++20", "-O1", "-g", "-Wall", "-Wextra", "-fno-strict-aliasing", "-fno-sanitize-recover=all"]
BUILDS = {
    "thread": ["calm", "mortal"],
    "address,undefined": ["calm", "mortal", "processes"],
}


def compiler() -> str:
    return os.environ.get("CXX", "g++")


def has_sanitizer(sanitizer: str, folder: Path) -> bool:
    probe = folder / "probe.cc"
    probe.write_text("int main() {}\n")
    build = [compiler(), f"-fsanitize={sanitizer}", str(probe), "-o", str(folder / "probe")]
    return subprocess.run(build, capture_output=True).returncode == 0 and run([str(folder / "probe")]).returncode == 0


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Without address randomisation where that can be had: older ThreadSanitizers fail on what newer kernels do."""
    fixed = ["setarch", "--addr-no-randomize"]
    if shutil.which(fixed[0]) and subprocess.run([*fixed, "true"], capture_output=True).returncode == 0:
        command = [*fixed, *command]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> dict[str, Path | None]:
    """The program built with each sanitizer, side by side; None where the sanitizer's runtime is missing."""
    builds: dict[str, tuple[Path, subprocess.Popen[str]]] = {}
    missing: dict[str, Path | None] = {}
    for sanitizer in BUILDS:
        folder = tmp_path_factory.mktemp("stress")
        if not has_sanitizer(sanitizer, folder):
            missing[sanitizer] = None
            continue
        sources = [str(Path(__file__).with_name("stress.cc")), *map(str, sorted(SOURCES.glob("shm/*.cc")))]
        command = [compiler(), *FLAGS, f"-fsanitize={sanitizer}", f"-I{SOURCES}", *sources]
        command += ["-o", str(folder / "stress"), "-pthread"]
        build = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        builds[sanitizer] = (folder / "stress", build)
    built: dict[str, Path | None] = {}
    for sanitizer, (program, build) in builds.items():
        said, _ = build.communicate()
        assert build.returncode == 0, said
        built[sanitizer] = program
    return built | missing


@pytest.mark.parametrize(
    ("sanitizer", "mode"), [(sanitizer, mode) for sanitizer, modes in BUILDS.items() for mode in modes]
)
def test_no_rollout_is_lost_doubled_or_torn(programs, sanitizer: str, mode: str) -> None:
    program = programs[sanitizer]
    if program is None:
        pytest.skip(f"{compiler()} has no runtime for -fsanitize={sanitizer} here")
    result = run([str(program), mode, "1"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert int(result.stdout.split()[0]) > 100
