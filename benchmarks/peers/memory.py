"""The memory of a process and all its descendants, read from /proc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

KIB = 1024


def family(root: int, proc: Path = Path("/proc")) -> list[int]:
    """A process and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for pid, status in _all(proc):
        children.setdefault(int(status[1]), []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def session(leader: int, proc: Path = Path("/proc")) -> list[int]:
    """The processes of a session: children too whose parents have ended."""
    return [pid for pid, status in _all(proc) if int(status[3]) == leader]


def is_alive(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether a process runs: one that has ended and that nobody has asked for does not."""
    try:
        return _status(proc / str(pid))[0] not in "ZX"
    except OSError:
        return False


def _all(proc: Path) -> Iterator[tuple[int, list[str]]]:
    """Every process and its status."""
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), _status(entry)
            except OSError:
                continue


def _status(process: Path) -> list[str]:
    """Fields of proc(5)'s stat behind the name: state, parent, group, session, ..."""
    return (process / "stat").read_text().rpartition(")")[2].split()


def family_bytes(root: int, proc: Path = Path("/proc")) -> int:
    """PSS of the family (a shared page is divided among its users), memory files counted in full.

    A game of this project's engine lives in a memory file of which not every page is mapped at all times: what is not
    mapped is memory too. Files are told by their inode, whoever holds them.
    """
    total, files = 0, {}
    for pid in family(root, proc):
        try:
            pss, mapped = _pss(proc / str(pid) / "smaps")
            files |= dict(_memory_files(proc / str(pid) / "fd"))
        except OSError:  # it has just ended
            continue
        total += pss - mapped
    return total + sum(files.values())


def _pss(smaps: Path) -> tuple[int, int]:
    """Bytes of PSS, and how many of them are pages of memory files (not their private copies)."""
    total, mapped, inside = 0, 0, False
    for line in smaps.read_text().splitlines():
        name, _, rest = line.partition(":")
        if "-" in name:
            inside = "/memfd:" in line
        elif name == "Pss":
            size = int(rest.split()[0]) * KIB
            total += size
            mapped += size * inside
        elif name == "Anonymous" and inside:
            mapped -= int(rest.split()[0]) * KIB
    return total, mapped


def _memory_files(descriptors: Path) -> Iterator[tuple[int, int]]:
    """Inode and bytes of every memory file that is open."""
    for entry in descriptors.iterdir():
        try:
            if str(entry.readlink()).startswith("/memfd:"):
                status = entry.stat()
                yield status.st_ino, status.st_blocks * 512
        except OSError:
            continue
