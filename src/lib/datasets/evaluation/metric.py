"""Base of the metrics: objects that save the results of a dataset and score them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

Columns = Mapping[str, slice | int]  # of result rows, by what they hold
Results = Mapping[int, Mapping[int, np.ndarray]]  # {image id: {1-based class: rows [n, columns]}}


class Metric(ABC):
    """A metric of one dataset's results.

    Attributes:
        needs: names of the result columns that it scores.
        names: names of the metrics in the order in which they are listed, without those of single classes.
        main: the name that chooses `model_best.pth` under `--metric AP`.
        full: the value of an AP when everything is found.
        ignoring: annotation keys of which each, where it is true, makes finding an object neither right nor wrong.
        ignores_kinds: so it is with objects of a dataset's ignored kinds, which otherwise are background.
    """

    needs: ClassVar[tuple[str, ...]]
    full: ClassVar[float] = 1.0
    ignoring: ClassVar[tuple[str, ...]] = ('iscrowd',)
    ignores_kinds: ClassVar[bool] = False
    names: tuple[str, ...]
    main: str

    def __init__(
        self,
        class_names: Sequence[str],
        cat_ids: Mapping[int, int],
        columns: Columns,
        label_folder: str | None = None,
    ):
        """Keep what is needed to save results.

        Args:
            class_names: names of the classes 0 to C - 1.
            cat_ids: category id -> class; negative classes are ignored kinds.
            columns: the layout of result rows.
            label_folder: folder of the images' KITTI label files, if there is one.
        """
        self.class_names, self.cat_ids, self.columns = class_names, cat_ids, columns
        self.label_folder = label_folder

    def is_headline(self, name: str) -> bool:
        """Return whether a metric or loss belongs in the log of every validation."""
        return '/' not in name

    def unit(self, name: str) -> str:
        """Return the unit of a metric of that name; '' for a share from 0 to 1."""
        return ''

    @abstractmethod
    def save(self, results: Results, folder: Path) -> Any:
        """Write results to a folder, in the form in which they are published.

        Args:
            results: `{image id: {1-based class: rows [n, columns]}}`, laid out as `columns`.
            folder: where to.

        Returns:
            The argument `saved` of `score`.
        """

    @abstractmethod
    def score(self, ground_truth: dict, saved: Any) -> dict[str, float]:
        """Score what `save` returned.

        Args:
            ground_truth: a COCO dict of the images that were evaluated.
            saved: what `save` returned.

        Returns:
            `{metric: value}`, with `names` among the keys.
        """
