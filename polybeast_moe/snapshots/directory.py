"""Snapshot directories on disk: written aside and renamed, verified by checksum, pruned. Knows files, not tensors.

    snapshots/step-000012345678/{weights.safetensors, optimizer.pt, state.json, manifest.json}

A directory named `step-*` is complete: it is written under a name that starts with a dot, every file and the directory
are flushed to the disk, and a rename publishes it. Removal renames it away first. So at any instant, also across a
crash or a power cut, a name `step-*` stands for a whole snapshot or for nothing. What a crash leaves behind has a
dotted name and goes with the next save.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from polybeast_moe.errors import UserError

WEIGHTS, OPTIMIZER, STATE, MANIFEST = "weights.safetensors", "optimizer.pt", "state.json", "manifest.json"
FORMAT = 2
_ASIDE = (".writing-", ".removing-")
_NAME = re.compile(r"step-(\d{12,})\Z")


class SnapshotError(UserError):
    """A snapshot that cannot be used: the message names it, the file and the reason."""


def publish(root: Path, frames: int, files: Mapping[str, bytes], notes: Mapping[str, Any]) -> Path:
    """Writes `files` and their manifest as `root/step-<frames>`; returns that directory.

    What stood under that name is exchanged for it in one step (where the file system cannot, in two renames).

    Raises:
        OSError: the disk is full, for example. Nothing but a dotted directory is left behind, and not even that if it
            could be removed.
    """
    root.mkdir(parents=True, exist_ok=True)
    sweep(root)
    path = root / f"step-{frames:012d}"
    aside = Path(tempfile.mkdtemp(prefix=f"{_ASIDE[0]}{path.name}-", dir=root))
    try:
        aside.chmod(0o755)  # mkdtemp's 0700 would hide a shared run from colleagues
        manifest = {
            "format": FORMAT,
            "frames": frames,
            **notes,
            "files": {
                name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
                for name, content in files.items()
            },
        }
        for name, content in {**files, MANIFEST: json.dumps(manifest, indent=2).encode()}.items():
            with (aside / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        sync_directory(aside)
        if not path.exists():
            aside.rename(path)
        elif not _exchange(aside, path):
            _remove(path)
            aside.rename(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(aside, ignore_errors=True)  # what stood there before, if anything did
    sync_directory(root)
    return path


def verify(path: Path) -> None:
    """Checks every byte of a snapshot against its manifest.

    Raises:
        SnapshotError: the directory, or a file in it, is missing, foreign, changed or of an unknown format.
    """
    reason = _reason_against(path)
    if reason:
        raise SnapshotError(f"snapshot {path}: {reason}")


def all_snapshots(root: Path) -> list[Path]:
    """Returns the snapshot directories under `root`, oldest first, whether good or not."""
    try:
        found = [path for path in root.iterdir() if _NAME.match(path.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=_frames)


def newest_good(root: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """Returns the newest snapshot that verifies (None: there is none) and the newer ones passed over, with reasons."""
    passed_over: list[tuple[Path, str]] = []
    for path in reversed(all_snapshots(root)):
        reason = _reason_against(path)
        if not reason:
            return path, passed_over
        passed_over.append((path, reason))
    return None, passed_over


def find_snapshot(path: str | Path) -> Path:
    """Returns the snapshot that `path` is, not verified yet, or the newest good one of the run directory that it is.

    Raises:
        SnapshotError: it is neither, or a run without a good snapshot.
    """
    folder = Path(path)
    if not folder.exists():
        raise SnapshotError(f"{path}: neither a run directory nor a snapshot: there is no such directory")
    if not (folder / "config.yaml").is_file():  # no run
        return folder
    found, passed_over = newest_good(folder / "snapshots")
    if found is None:
        reason = f": {passed_over[0][1]}" if passed_over else ""
        raise SnapshotError(f"run directory {path}: no good snapshot{reason}")
    return found


def notes_of(path: Path) -> dict[str, Any]:
    """Returns what a snapshot's manifest says of it (`kind`, `number`, ...); nothing where it cannot be read."""
    try:
        notes = json.loads((path / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return notes if isinstance(notes, dict) else {}


def is_phase_end(path: Path) -> bool:
    """Tells whether a snapshot was taken at a phase's end."""
    return notes_of(path).get("kind") == "phase_end"


class Verified:
    """Tells whether a snapshot is good, hashing each only once as long as none of its files changes."""

    def __init__(self) -> None:
        self._known: dict[Path, object] = {}

    def __call__(self, path: Path) -> bool:
        """Returns whether it verifies."""
        if path in self._known and self._known[path] == _appearance(path):
            return True
        good = not _reason_against(path)
        if good:
            self.trust(path)
        return good

    def trust(self, path: Path) -> None:
        """Takes note of a snapshot that is known to be good: this process has just written it."""
        self._known[path] = _appearance(path)

    def forget(self, path: Path) -> None:
        """Takes note of a snapshot that is no longer there."""
        self._known.pop(path, None)


def _appearance(path: Path) -> object:
    """What changes when somebody writes to a snapshot: sizes, times of change and file numbers."""
    try:
        with os.scandir(path) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError:
        return None
    return sorted((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in found)


def prune(
    root: Path,
    keep_last: int,
    keep: Callable[[Path], bool] = is_phase_end,
    is_good: Callable[[Path], bool] | None = None,
) -> list[Path]:
    """Removes old snapshots; returns those removed.

    The `keep_last` (at least one) newest that verify stay, and older ones for which `keep` is true. Damaged ones do not
    count; they go once enough good ones are newer.
    """
    is_good = is_good or Verified()
    good, removed = 0, []
    for path in reversed(all_snapshots(root)):
        if good < max(keep_last, 1):
            good += is_good(path)
        elif not keep(path):
            _remove(path)
            removed.append(path)
    return removed


def sweep(root: Path) -> None:
    """Removes what interrupted saves and removals left. Only for the owner of the run directory's lock."""
    for prefix in _ASIDE:
        for leftover in root.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)


def sync_directory(path: Path) -> None:
    """Flushes a directory's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    aside = path.with_name(f"{_ASIDE[1]}{path.name}-{os.getpid()}")
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Gives two directories each other's name in one step (renameat2); False where the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _frames(path: Path) -> int:
    match = _NAME.match(path.name)
    return int(match[1]) if match else -1


def _reason_against(path: Path) -> str:
    """Returns what is wrong with a snapshot; empty when nothing is."""
    try:
        return _reason_against_manifest(path) or _reason_against_files(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _reason_against_manifest(path: Path) -> str:
    if not path.is_dir():
        return "is not a directory" if path.exists() else "does not exist"
    if not (path / MANIFEST).is_file():
        return f"not a snapshot, it has no {MANIFEST}"
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        version, frames, files = manifest["format"], manifest["frames"], manifest["files"]
        well_formed = all(isinstance(file["sha256"], str) and isinstance(file["bytes"], int) for file in files.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        well_formed, version, frames, files = False, None, None, {}
    if not well_formed:
        return f"{MANIFEST} is damaged"
    if version != FORMAT:
        return f"{MANIFEST}: format {version!r} is unknown (this version reads {FORMAT})"
    if _NAME.match(path.name) and frames != _frames(path):
        return f"{MANIFEST} is of another snapshot ({frames} frames)"
    if set(files) != {WEIGHTS, OPTIMIZER, STATE}:
        return f"{MANIFEST} lists other files than a snapshot's"
    return ""


def _reason_against_files(path: Path) -> str:
    expected = json.loads((path / MANIFEST).read_bytes())["files"]
    for name, figures in expected.items():
        file = path / name
        if not file.is_file() or file.is_symlink():
            return f"{name} is missing"
        size = file.stat().st_size
        if size != figures["bytes"]:
            return f"{name} has {size} bytes instead of {figures['bytes']}"
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != figures["sha256"]:
                return f"{name} was changed: its SHA-256 is not the manifest's"
    strangers = sorted({entry.name for entry in path.iterdir()} - {*expected, MANIFEST})
    return f"{strangers[0]} does not belong to it" if strangers else ""
