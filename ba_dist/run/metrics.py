"""The numbers of a run: metrics.jsonl, events of TensorBoard, and a logger if asked for."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ba_dist.run.board import Board
from ba_dist.run.loggers import Guarded
from ba_dist.run.run_dir import to_json


class Metrics:
    """Writes down events on rank 0; on other ranks it is never made.

    Args:
        run_dir: the run's folder.
        logger: that also gets them.
    """

    def __init__(self, run_dir: Path, logger: Guarded | None = None):
        self._file = (run_dir / "metrics.jsonl").open("a")
        self.board, self._logger = Board(run_dir), logger
        self._summary: Mapping[str, Any] | None = None

    def start(self, settings: Mapping[str, Any], judged_by: str) -> None:
        """Notes the values of the run, for programs that compare runs by them.

        Args:
            settings: name → value.
            judged_by: the number of evaluation that says how good a network is.
        """
        self.board.start(settings, judged_by)
        if self._logger:
            self._logger.start(settings)

    def write(self, event: str, step: int, **values: Any) -> None:
        """Writes one object `{"event", "step", …}`; numbers also go to TensorBoard.

        A number that is not finite is null in the file, as JSON has no word for it.

        Args:
            event: step, epoch or straggler.
            step: steps that are done.
        """
        try:
            self._file.write(to_json({"event": event, "step": step, **values}) + "\n")
            self._file.flush()
        except OSError as error:  # which does not say what file it was
            raise OSError(error.errno, error.strerror, self._file.name) from None
        self.board.log(event, step, values)
        if self._logger:
            self._logger.log(event, step, values)

    def end(self, summary: Mapping[str, Any]) -> None:
        """The run has come to its end, with these results."""
        self._summary = summary

    def close(self) -> None:
        """Flushes and closes all of them."""
        self.board.close()
        if self._logger:
            self._logger.close(self._summary)
        with contextlib.suppress(OSError):
            self._file.close()
