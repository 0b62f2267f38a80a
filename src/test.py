"""Evaluate a checkpoint: python test.py TASK --load_model FILE [options].

What a function needs is imported in it, once the command line is found right: torch takes seconds to load.
"""

from typing import TYPE_CHECKING, Any

from lib.utils.cli import Progress, run_cli
from lib.utils.errors import UserError
from lib.utils.signals import stop_signals_exit, stop_signals_interrupt

if TYPE_CHECKING:
    from lib.detectors.base_detector import BaseDetector
    from lib.opts import Options


def main(args: list[str] | None = None) -> None:
    with stop_signals_exit():
        from lib.opts import opts

        opt = opts().parse(args, program='test.py')
        if not opt.load_model:
            best = f'{opt.save_dir}/model_best.pth'
            raise UserError(f"test.py scores a trained network: name its checkpoint, such as --load_model '{best}'")

        from lib.datasets.dataset_factory import get_dataset
        from lib.detectors.detector_factory import detector_factory
        from lib.utils.files import writable_folder

    Dataset = get_dataset(opt.dataset, opt.task)
    opts.update_dataset_info_and_set_heads(opt, Dataset)
    writable_folder(opt.save_dir)
    dataset = Dataset(opt, 'test' if opt.trainval else 'val')
    detector = detector_factory[opt.task](opt)
    with stop_signals_interrupt():
        dataset.run_eval(detect_all(opt, dataset, detector), opt.save_dir)


def detect_all(opt: 'Options', dataset: Any, detector: 'BaseDetector') -> dict[int, dict]:
    """Detect in all images, `{image_id: results}`; those that cannot be read are named, counted and left out."""
    from lib.datasets.test_images import iterate_test_images
    from lib.detectors.base_detector import TIMES

    results: dict[int, dict] = {}
    skipped, seconds = 0, dict.fromkeys(TIMES, 0.0)
    workers = 0 if opt.not_prefetch_test else opt.num_workers
    batches = iterate_test_images(dataset, detector.pre_process.prefetch, workers, opt.test_batch_size)
    with Progress(len(dataset), f'{opt.task}/{opt.exp_id} test') as progress:
        for batch in batches:
            readable = {image.image_id: image.input for image in batch if image.input is not None}
            for image in batch:
                if image.input is None:
                    skipped += 1
                    print(f'skipped: {image.problem}')
                    progress.step()
            found = detector.run_batch(list(readable.values()))
            for image_id, done in zip(readable, found, strict=True):
                results[image_id] = done['results']
                for stage in TIMES:
                    seconds[stage] += done[stage]
                means = {stage: seconds[stage] / len(results) for stage in TIMES}
                progress.step(' '.join(f'{stage} {mean:.3f}s' for stage, mean in means.items()))
    if skipped:
        print(f'{skipped} of {len(dataset)} images could not be read')
    return results


if __name__ == '__main__':
    run_cli(main)
