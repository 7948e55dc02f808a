"""A run in a script or a notebook: what the `ba-dist` command does with it, as Python objects."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ba_dist import runtime
from ba_dist.config import Config
from ba_dist.rules.mean_answer import Average
from ba_dist.run import checkpoint
from ba_dist.run.record import load_config

if TYPE_CHECKING:  # loads Keras
    from ba_dist.predict import Predictor


class Run:
    """A run directory. Only what is asked for is loaded; `load_run` makes it.

    Args:
        folder: the run directory.
        which: checkpoint: `newest`, `best`, or the number of a step.
        config: of the run.
    """

    def __init__(self, folder: Path, which: str, config: Config):
        self.folder = folder
        self.config = config
        self._which = which

    @property
    def checkpoints(self) -> list[str]:
        """The checkpoints that there are: `best`, if one was kept, and steps, the newest last."""
        return checkpoint.names(checkpoint.folder_of(self.folder))

    @property
    def step(self) -> int:
        """Steps that were done at the checkpoint."""
        return self._predictor.trained.step

    @property
    def model(self) -> Any:
        """The Keras model with the checkpoint's weights: standardised images → logits."""
        return self._predictor.trained.made.model

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the classes, in order of their numbers; empty where they are not known."""
        return self._predictor.trained.class_names

    def evaluate(
        self,
        data_dir: str | None = None,
        classes: bool = False,
        *,
        tta: int | None = None,
        tta_average: Average = "probabilities",
    ) -> dict[str, Any]:
        """Evaluates the checkpoint on the validation samples; collective over the world.

        Args:
            data_dir: where the data is now; None for where it was in training.
            classes: whether to tell of each class, and of confusions.
            tta: augmented copies of each sample, whose answers are averaged; None for none.
            tta_average: what is averaged over them: `probabilities` or `logits`.

        Returns:
            `step`, `samples`, the metrics (`val_top1`, `val_loss` …) and, where asked for,
            `per_class`, `confusion` and `tta`, as `ba-dist eval --json` prints them.

        Raises:
            ConfigError: when something else than classes was learned, and they are asked for.
        """
        runtime.quiet()
        from ba_dist.evaluate_run import evaluate_run

        return evaluate_run(
            self.folder,
            self._which,
            data_dir,
            classes=classes,
            tta=tta,
            tta_average=tta_average,
        ).as_dict()

    def predict(self, images: Any) -> npt.NDArray[np.float64]:
        """The probability of each class for each image, float64 [n, classes].

        Args:
            images: an array or a list, uint8 [H, W, C] each, or paths of files; brought to the
                network's size as in evaluation.

        Raises:
            DataError: when an image cannot be read, or has a size that the recipe does not crop.
        """
        from ba_dist.predict import probabilities, read

        if len(images) and isinstance(images[0], (str, Path)):
            images = [read(Path(path)) for path in images]
        return probabilities(self._predictor.logits(images))

    def audit(self, render: int | None = None) -> list[str]:
        """What is wrong with the run's trace, a line for each problem; none if all invariants held.

        Args:
            render: ghost batches to render anew; None for 64, 0 to check without the data.
        """
        from ba_dist.analysis.audit import RENDERED, audit

        return audit(self.folder, RENDERED if render is None else render)[1]

    @cached_property
    def _predictor(self) -> "Predictor":
        runtime.quiet()
        from ba_dist.predict import Predictor
        from ba_dist.trained import load

        return Predictor(load(self.folder, self._which))


def load_run(folder: str | Path, checkpoint: str = "newest") -> Run:
    """A run directory as an object.

    Args:
        folder: of the run.
        checkpoint: `newest`, `best`, or the number of a step.

    Raises:
        UserError: when the folder is not that of a run.
    """
    return Run(Path(folder), checkpoint, load_config(Path(folder))[0])
