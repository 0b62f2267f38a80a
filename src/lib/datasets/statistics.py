"""Numbers about a dataset before training: objects, sizes, places, and what the network's map cannot hold."""

from dataclasses import dataclass

import numpy as np

from .sample.base import Sample, View
from .sample.multi_pose import annotated

VANISHING = 1.0  # cells of the output map: an object that is narrower or flatter leaves no cell of its own
HIDDEN = 1  # COCO's flag of joints that are annotated though they cannot be seen


@dataclass
class Statistics:
    """Numbers about the N images and n usable objects of a split, without areas that the task ignores.

    Attributes:
        split: 'train' or 'val'.
        class_names: of the classes.
        image_sizes: [N, 2], width and height.
        image_names: of the N image files.
        classes: [n], 0-based. image_of: [n], the objects' images.
        boxes: [n, 4], x1 y1 x2 y2 in image pixels, clipped to the image.
        left_out: number of objects that the check left out.
        input_boxes: [n, 4], x1 y1 x2 y2 in pixels of the network's input, without augmentation.
        cells: [n, 2], column and row of the centre on the output map; map_sizes: [n, 2], sizes in its cells.
        fields: further arrays [n, ...] by annotation key, such as `keypoints`.
    """

    split: str
    class_names: list[str]
    image_sizes: np.ndarray
    image_names: list[str]
    classes: np.ndarray
    image_of: np.ndarray
    boxes: np.ndarray
    left_out: int
    input_boxes: np.ndarray
    cells: np.ndarray
    map_sizes: np.ndarray
    fields: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.classes)

    def objects_of_classes(self) -> np.ndarray:
        """Return the number of objects of each class, [C]."""
        return np.bincount(self.classes, minlength=len(self.class_names))

    def images_of_classes(self) -> np.ndarray:
        """Return the number of images that show each class, [C]."""
        pairs = np.unique(np.column_stack([self.classes, self.image_of]), axis=0)  # [m, 2]
        return np.bincount(pairs[:, 0], minlength=len(self.class_names))

    def objects_of_images(self) -> np.ndarray:
        """Return the number of objects of each image, [N]."""
        return np.bincount(self.image_of, minlength=len(self.image_sizes))

    def empty_images(self) -> list[str]:
        """Return the names of the images without objects."""
        return [self.image_names[i] for i in np.flatnonzero(self.objects_of_images() == 0)]

    def sizes(self) -> np.ndarray:
        """Return widths and heights in the image, [n, 2]."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    def input_sizes(self) -> np.ndarray:
        """Return widths and heights at the network's input size, [n, 2]."""
        return self.input_boxes[:, 2:] - self.input_boxes[:, :2]

    def centers(self) -> np.ndarray:
        """Return the centres as parts of the image, [n, 2]."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2 / self.image_sizes[self.image_of]

    def sharing(self, of_one_class: bool) -> np.ndarray:
        """Return which objects share the cell of their centre with another one of the image.

        Args:
            of_one_class: the other one is of the same class, so that one peak stands for both; otherwise of any class,
                so that they share the cell whose size and offset are regressed.

        Returns:
            bool [n].
        """
        columns = [self.image_of, self.cells[:, 0], self.cells[:, 1], *([self.classes] if of_one_class else [])]
        _, group, counts = np.unique(np.column_stack(columns), axis=0, return_inverse=True, return_counts=True)
        return np.asarray(counts[group.ravel()] > 1)

    def vanishing(self) -> np.ndarray:
        """Return which objects are narrower or flatter than a cell of the output map, bool [n]."""
        return np.asarray((self.map_sizes < VANISHING).any(1))

    def joint_states(self) -> np.ndarray | None:
        """Return how often each joint is seen, hidden and not annotated, [J, 3], among objects that have any joint.

        None where the task reads no joints.
        """
        keypoints = self.fields.get('keypoints')  # [n, J, 3]
        if keypoints is None:
            return None
        there = annotated(keypoints)  # [n, J]
        with_any = there.any(1)
        there, hidden = there[with_any], (there & (keypoints[..., 2] == HIDDEN))[with_any]
        return np.column_stack([(there & ~hidden).sum(0), hidden.sum(0), (~there).sum(0)])

    def without_joints(self) -> int:
        """Return the number of objects without any joint; 0 where the task reads none."""
        keypoints = self.fields.get('keypoints')
        return 0 if keypoints is None else int((~annotated(keypoints).any(1)).sum())


def gather(dataset: Sample) -> Statistics:
    """Gather the numbers of a split as its dataset reads it, at the input size of its options."""
    index = dataset.index
    image_of = np.repeat(np.arange(len(index)), index.counts())
    learnt = index.classes >= 0
    usable = index.valid & learnt
    boxes, image_of = index.boxes[usable], image_of[usable]
    on_map = boxes_on_map(dataset, boxes, image_of)
    sizes = index.sizes[image_of]
    return Statistics(
        split=dataset.split,
        class_names=dataset.class_names,
        image_sizes=index.sizes,
        image_names=[index.name(i) for i in range(len(index))],
        classes=index.classes[usable],
        image_of=image_of,
        boxes=np.clip(boxes, 0, np.tile(sizes, 2)),
        left_out=int((learnt & ~index.valid).sum()),
        input_boxes=on_map * dataset.opt.down_ratio,
        cells=((on_map[:, :2] + on_map[:, 2:]) / 2).astype(np.int64),
        map_sizes=on_map[:, 2:] - on_map[:, :2],
        fields={name: values[usable] for name, values in index.fields.items()},
    )


def boxes_on_map(dataset: Sample, boxes: np.ndarray, image_of: np.ndarray) -> np.ndarray:
    """Map boxes [n, 4] of images to the network's output map, without augmentation; [n, 4] in cells.

    Args:
        dataset: says how it sees an image.
        boxes: x1 y1 x2 y2 in image pixels.
        image_of: [n], their images.
    """
    sizes, group = np.unique(dataset.index.sizes, axis=0, return_inverse=True)  # [m, 2]
    group, ratio = group.ravel()[image_of], dataset.opt.down_ratio
    mapped = np.zeros((len(boxes), 4), np.float32)
    order = np.argsort(group, kind='stable')
    starts = np.searchsorted(group[order], np.arange(len(sizes) + 1))
    for number, (width, height) in enumerate(sizes.tolist()):
        members = order[starts[number] : starts[number + 1]]
        if len(members):
            window = dataset.whole(width, height)
            input_width, input_height = window.input_size
            output_size = (input_width // ratio, input_height // ratio)
            view = View(window.center, window.scale, window.input_size, output_size, width)
            mapped[members] = view.boxes(boxes[members])
    return mapped
