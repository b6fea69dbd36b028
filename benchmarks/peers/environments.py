"""Makes the peers' environments, one each, under build/peers.

    python benchmarks/peers/environments.py                          # those that are missing
    python benchmarks/peers/environments.py --only monobeast --again

Each has a complete list of pinned packages in `requirements/NAME.txt`. All but torch are installed without looking at
dependencies: what pip would refuse to resolve is pinned there by hand. `--borrow-torch` links the torch of the
environment that runs this script instead of installing it (for trying things out). Systems that have no list there
(this project's own, and the plain loop, which is made of its libraries) run in the environment of the benchmark.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "peers"
REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
BORROWED = ("torch", "nvidia", "triton")  # what torch's wheels hold beside their dependencies


def names() -> list[str]:
    """The systems that have an environment of their own."""
    return sorted(file.stem for file in REQUIREMENTS.glob("*.txt"))


def requirements(system: str) -> str:
    """Its list of packages."""
    return (REQUIREMENTS / f"{system}.txt").read_text()


def python_of(system: str) -> Path:
    """The interpreter that runs a system's adapter."""
    return FOLDER / system / "bin" / "python" if system in names() else Path(sys.executable)


def is_ready(system: str) -> bool:
    """Whether its environment has been made, of the requirements as they are now."""
    if system not in names():
        return True
    stamp = FOLDER / system / "requirements.sha256"
    return stamp.exists() and stamp.read_text() == _digest(system)


def make(system: str, *, borrow_torch: bool = False) -> None:
    """Makes an environment from nothing. Raises CalledProcessError with pip's words on the terminal.

    torch comes with what it asks for: its builds for CUDA bring libraries of their own, its CPU builds none.
    """
    folder = FOLDER / system
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    lines = requirements(system).splitlines()
    [torch] = [line for line in lines if line.startswith("torch==")]
    others = folder / "requirements.txt"
    others.write_text("\n".join(line for line in lines if line != torch) + "\n")
    if borrow_torch:
        _link_torch(folder)
    else:
        subprocess.run([*pip, torch, "-c", str(others)], check=True)
    subprocess.run([*pip, "--no-deps", "-r", str(others)], check=True)
    (folder / "requirements.sha256").write_text(_digest(system))


def _link_torch(folder: Path) -> None:
    ours = Path(sysconfig.get_paths()["purelib"]).resolve()
    [theirs] = folder.glob("lib/python*/site-packages")
    for entry in ours.iterdir():
        if entry.name in BORROWED or entry.name.startswith(("torch-", "torchgen", "functorch")):
            (theirs / entry.name).symlink_to(entry.resolve())


def _digest(system: str) -> str:
    return hashlib.sha256(requirements(system).encode()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=names(), default=names())
    parser.add_argument("--again", action="store_true", help="also those that are there")
    parser.add_argument("--borrow-torch", action="store_true", help="link this environment's torch")
    arguments = parser.parse_args()
    for system in arguments.only:
        if arguments.again or not is_ready(system):
            print(f"{system}: being made in {FOLDER / system}", flush=True)
            make(system, borrow_torch=arguments.borrow_torch)
        print(f"{system}: ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
