"""Evaluate a checkpoint: python test.py TASK --load_model FILE [options]."""

from argparse import Namespace
from collections.abc import Iterator
from itertools import islice

from torch.utils.data import DataLoader, Dataset

from lib.datasets.dataset_factory import get_dataset
from lib.datasets.loaders import init_worker
from lib.detectors.base_detector import TIMES, BaseDetector, PreProcessor
from lib.detectors.detector_factory import detector_factory
from lib.opts import opts
from lib.utils.cli import Progress, run_cli
from lib.utils.errors import UserError
from lib.utils.files import writable_folder
from lib.utils.image import read_image


def main(args: list[str] | None = None) -> None:
    opt = opts().parse(args, program='test.py')
    if not opt.load_model:
        best = f'{opt.save_dir}/model_best.pth'
        raise UserError(f"test.py scores a trained network: name its checkpoint, such as --load_model '{best}'")
    EvalDataset = get_dataset(opt.dataset, opt.task)
    opts.update_dataset_info_and_set_heads(opt, EvalDataset)
    if opt.num_workers == 0:
        opt.not_prefetch_test = True
    writable_folder(opt.save_dir)
    dataset = EvalDataset(opt, 'test' if opt.trainval else 'val')
    detector = detector_factory[opt.task](opt)
    dataset.run_eval(detect_all(opt, dataset, detector), opt.save_dir)


def detect_all(opt: Namespace, dataset: Dataset, detector: BaseDetector) -> dict[int, dict]:
    """`{image_id: results}` of all images; those that cannot be read are named, counted and left out."""
    results, skipped = {}, 0
    seconds = dict.fromkeys(TIMES, 0.0)
    with Progress(len(dataset), f'{opt.task}/{opt.exp_id} test') as progress:
        for batch in batches(inputs(opt, dataset, detector), opt.test_batch_size):
            readable = {image_id: image for image_id, image in batch if not isinstance(image, str)}
            for _, image in batch:
                if isinstance(image, str):
                    skipped += 1
                    print(f'skipped: {image}')
                    progress.step()
            for image_id, done in zip(readable, detector.run_batch(list(readable.values())), strict=True):
                results[image_id] = done['results']
                for stage in TIMES:
                    seconds[stage] += done[stage]
                means = {stage: seconds[stage] / len(results) for stage in TIMES}
                progress.step(' '.join(f'{stage} {mean:.3f}s' for stage, mean in means.items()))
    if skipped:
        print(f'{skipped} of {len(dataset)} images could not be read')
    return results


def batches(items: Iterator, size: int) -> Iterator[list]:
    """The items in lists of `size`; the last one may be shorter."""
    while batch := list(islice(items, size)):
        yield batch


def inputs(opt: Namespace, dataset: Dataset, detector: BaseDetector) -> Iterator[tuple[int, dict | str]]:
    """Image ids with what the detector takes: prefetched by worker processes, or read in this one."""
    if opt.not_prefetch_test:
        images = TestImages(dataset, pre_process=None)
        return (images[i] for i in range(len(images)))
    images = TestImages(dataset, detector.pre_process)
    return iter(
        DataLoader(
            images, batch_size=None, collate_fn=as_it_is, num_workers=opt.num_workers, worker_init_fn=init_worker
        )
    )


class TestImages(Dataset):
    """(image id, what the detector takes) of a dataset's images; without `pre_process` their inputs are yet to be made.

    In place of an image that cannot be read stands the reason, a string.
    """

    def __init__(self, dataset: Dataset, pre_process: PreProcessor | None):
        self.dataset, self.pre_process = dataset, pre_process

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> tuple[int, dict | str]:
        image_id = int(self.dataset.index.image_ids[i])
        try:
            image = read_image(self.dataset.image_path(i), self.dataset.image_size(i))
        except UserError as error:
            return image_id, str(error)
        meta = self.dataset.image_meta(i)
        return image_id, self.pre_process.prefetch(image, meta) if self.pre_process else {'image': image, 'meta': meta}


def as_it_is(item):
    """No collation, no conversion to tensors."""
    return item


if __name__ == '__main__':
    run_cli(main)
