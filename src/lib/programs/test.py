"""Evaluate a checkpoint: python test.py TASK --load_model FILE [options].

What a function needs is imported in it, once the command line is found right: torch takes seconds to load.
"""

from typing import TYPE_CHECKING, Any

from ..utils.allocator import keep_freed_memory
from ..utils.errors import UserError
from ..utils.launch import start_ranks
from ..utils.signals import stop_signals_exit, stop_signals_interrupt

if TYPE_CHECKING:
    from ..datasets.evaluation.packed import PackedResults
    from ..detectors.base_detector import BaseDetector
    from ..opts import Options
    from ..utils.ranks import Ranks


def main(args: list[str] | None = None, ranks: 'Ranks | None' = None) -> None:
    with stop_signals_exit():
        from ..opts import opts
        from ..utils.launch import ALONE

        opt = opts().parse(args, program='test.py', launch=ranks.launch if ranks else ALONE)
        if not opt.load_model:
            best = f'{opt.save_dir}/model_best.pth'
            raise UserError(f"test.py scores a trained network: name its checkpoint, such as --load_model '{best}'")

        from ..datasets.dataset_factory import get_dataset
        from ..detectors.detector_factory import detector_factory
        from ..opts import shared_options
        from ..utils.files import writable_folder
        from ..utils.ranks import ONE

    if opt.processes > 1 and ranks is None:
        _ = opt.device  # a GPU that is not there is refused before any process starts
        start_ranks(main, args, opt.processes)
        return
    keep_freed_memory()
    ranks = ranks or ONE
    Dataset = get_dataset(opt.dataset, opt.task)
    opts.update_dataset_info_and_set_heads(opt, Dataset)
    if ranks.is_lead:
        writable_folder(opt.save_dir)
    with ranks.one_first():
        dataset = Dataset(opt, 'test' if opt.trainval else 'val')
    ranks.check_alike({**shared_options(opt), **dataset.facts()})
    ranks.open_device(opt.device)
    detector = detector_factory[opt.task](opt)
    with stop_signals_interrupt():
        detector.compute_in(*ranks.from_lead(detector.fastest_way() if ranks.is_lead else ('', None)))
        if ranks.is_lead and detector.file is None:
            print(f'the network computes in {detector.dtype}')
        results = detect_all(opt, dataset, detector, ranks)
        if ranks.is_lead:
            metrics = dataset.run_eval(results, opt.save_dir)
            if not opt.no_report:
                from ..reports.evaluation import report_safely

                report_safely(opt, dataset, results, metrics)


def detect_all(opt: 'Options', dataset: Any, detector: 'BaseDetector', ranks: 'Ranks') -> 'PackedResults':
    """Detect in all images, which the ranks share out; those that cannot be read are named, counted and left out.

    Returns:
        `{image_id: results}` in the order of the dataset, in rank 0; in the others those of some images.
    """
    from ..datasets.evaluation.packed import PackedResults
    from ..detectors.detect_dataset import detect_share

    share = ranks.share(len(dataset), opt.test_batch_size)
    found, problems = detect_share(opt, dataset, detector, share, shown=ranks.is_lead)
    of_ranks = ranks.collect((found, problems))
    for _, others in of_ranks[1:]:
        for problem in others:
            print(f'skipped: {problem}')
    skipped = sum(len(problems) for _, problems in of_ranks)
    if skipped:
        print(f'{skipped} of {len(dataset)} images could not be read')
    together = {image_id: packed for of_rank, _ in of_ranks for image_id, packed in of_rank.packed.items()}
    in_order = (int(image_id) for image_id in dataset.index.image_ids)
    return PackedResults((image_id, together[image_id]) for image_id in in_order if image_id in together)
