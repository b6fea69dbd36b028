"""The Weights & Biases sink: the curves of `metrics.csv` under the same tags as TensorBoard's. Optional dependency.

Where the run is sent, and whether at all, is W&B's own business: `WANDB_MODE=offline` writes it under `wandb/` of the
run directory for a later `wandb sync`, `WANDB_ENTITY` and `wandb login` say whose it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from polybeast_moe.errors import UserError
from polybeast_moe.monitoring.columns import metric_tags
from polybeast_moe.monitoring.sinks import Row, event_text, to_plain

try:
    import wandb
except ImportError:
    raise UserError("monitoring.wandb needs the package wandb: pip install wandb, or leave the key out") from None

_WORDS = ("phase", "routing")


class WandbSink:
    """One W&B run for a run directory, resumed with it. The horizontal axis is `frames`.

    W&B cannot take points back: those beyond a restored snapshot stay, and the curve goes over them again.
    """

    name = "wandb"

    def __init__(self, run_dir: Path, experts: Sequence[str], project: str, config: Mapping[str, Any]) -> None:
        self._run_dir = run_dir
        self._tags = metric_tags(experts)
        self._project = project
        self._config = dict(config)
        self._id: str | None = None
        self._run: Any = None
        self._frames = 0

    def metrics(self, row: Row) -> None:
        """Logs every number of the row under its tag, beside frames, phase and routing."""
        self._frames = int(row["frames"])
        values = {
            self._tags[column]: to_plain(value)
            for column, value in row.items()
            if column in self._tags and value is not None
        }
        words = {name: row[name] for name in _WORDS if row.get(name) is not None}
        self._log({"frames": self._frames, **values, **words})

    def episodes(self, rows: Sequence[Row]) -> None:
        """Logs nothing: their means are in the metrics row."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Logs the event as text."""
        self._log({"frames": int(event.get("frames", self._frames)), "events/changes": event_text(event)})

    def flush(self) -> None:
        """Does nothing: W&B's own process sends what it has."""

    def close(self) -> None:
        """Ends the W&B run; waits until everything is sent or written."""
        run, self._run = self._run, None
        if run is not None:
            with _refusals():
                run.finish()

    def state(self) -> dict[str, Any]:
        """Returns W&B's number of the run."""
        return {"id": self._id}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on with the W&B run of the snapshot."""
        self._id = state["id"]

    def _log(self, values: Mapping[str, Any]) -> None:
        with _refusals():
            if self._run is None:
                self._run = wandb.init(
                    project=self._project,
                    name=self._run_dir.name,
                    dir=str(self._run_dir),
                    config=self._config,
                    id=self._id,
                    resume="allow",
                    settings=wandb.Settings(silent=True, disable_git=True, save_code=False, console="off"),
                )
                self._id = self._run.id
                self._run.define_metric("*", step_metric="frames")
            self._run.log(dict(values))


@contextmanager
def _refusals() -> Iterator[None]:
    """Turns what W&B raises into the OSError of a sink that cannot write: a run goes on without it."""
    try:
        yield
    except wandb.Error as error:
        raise OSError(f"Weights & Biases: {' '.join(str(error).split())}") from None
