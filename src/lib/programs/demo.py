"""Look: detect in an image, a folder of images, a video or a camera's frames, and draw what was found.

    python demo.py ctdet --demo PATH --load_model MODEL.pth

PATH is an image, a folder (with those in it), a pattern such as 'photos/**/*.jpg', a video, an address (https://,
rtsp://), `webcam` or `webcam:NUMBER`. The drawn images (or the video) and `results.json`, a list of every detection, go
into `--output`. With a display they are shown too: any key goes on to the next image, Esc ends.

Functions import what they need, once the command line is found right: torch takes seconds to load.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.allocator import keep_freed_memory
from ..utils.cli import track
from ..utils.errors import UserError
from ..utils.signals import stop_signals_exit, stop_signals_interrupt
from ..utils.words import plural

if TYPE_CHECKING:
    from ..detectors.base_detector import BaseDetector
    from ..opts import Options
    from ..utils.media.outputs import Outputs
    from ..utils.media.sources import Source


def main(args: list[str] | None = None) -> None:
    with stop_signals_exit():
        from ..opts import opts
        from ..utils.launch import refuse_ranks

        refuse_ranks('demo.py')
        opt = opts().init(args)

        from ..detectors.detector_factory import detector_factory
        from ..utils.files import writable_folder
        from ..utils.media.outputs import Outputs
        from ..utils.media.sources import open_source

    keep_freed_memory()
    folder = Path(opt.output or Path(opt.save_dir) / 'demo')
    source = open_source(opt.demo, opt.max_pixels, opt.every, but=folder)
    outputs = Outputs(opt, source, writable_folder(folder))
    detector = detector_factory[opt.task](opt)
    with stop_signals_interrupt():
        detector.compute_in(*detector.fastest_way())
        demo(opt, detector, source, outputs)


def demo(opt: 'Options', detector: 'BaseDetector', source: 'Source', outputs: 'Outputs') -> None:
    """Detect in each frame of the source, draw, save and show; Ctrl-C, SIGTERM and errors keep what was done."""
    from ..detectors.base_detector import TIMES
    from ..utils.media import has_display, show_images

    window = has_display() and not opt.no_display
    seconds = dict.fromkeys(TIMES, 0.0)
    try:
        for frame in track(source, 'demo', source.total) if source.total else source:
            try:
                meta = detector.image_meta(frame.name)
            except UserError as error:
                source.skip(error)
                continue
            found = detector.run(frame.image, meta)
            detections = detector.describe(found)
            drawings = detector.draw(frame.image, detections, meta, outputs.least_side)
            outputs.add(frame, detections, drawings)
            for stage in TIMES:
                seconds[stage] += found[stage] + (frame.seconds if stage in ('tot', 'load') else 0)
            if window and show_images(drawings, pause=source.video is None):
                break
    finally:
        outputs.close()
        report(source, outputs, seconds)
    if not outputs.count:
        raise UserError(f"nothing could be read from '{opt.demo}'")


def report(source: 'Source', outputs: 'Outputs', seconds: dict[str, float]) -> None:
    """Print the last lines: what was left out, where the results are, and the mean time of each stage."""
    if source.skipped:
        print(f'skipped {source.skipped} image(s)')
    if source.exhausted and 0 < outputs.count < source.total:
        print(f'{outputs.count} of the {source.total} frames that the file announces were read')
    if outputs.count:
        looked_at = plural(outputs.count, 'image' if source.video is None else 'frame')
        print(f"{looked_at} drawn in '{outputs.place}', detections in '{outputs.json.path}'")
        found = ', '.join(f'{count} {name}' for name, count in outputs.drawn.most_common())
        print(f'objects drawn: {sum(outputs.drawn.values())}' + (f' ({found})' if found else ''))
        means = ' | '.join(f'{stage} {total / outputs.count:.3f}' for stage, total in seconds.items())
        print(f'mean seconds an image: {means}')
