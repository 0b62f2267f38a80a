"""demo.py and vis_pred: what they take, what they draw and write, and how mistakes and bad input end."""

import errno
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

import demo
from lib.detectors.base_detector import TIMES
from lib.detectors.detector_factory import detector_factory
from lib.utils import files, media
from lib.utils.ddd_utils import DEFAULT_CALIB, common_calib
from lib.utils.errors import UserError
from lib.utils.image import read_image
from tools import vis_pred

ROWS = {
    'ctdet': {1: [[10, 20, 60, 70, 0.9]], 2: [[5, 5, 30, 30, 0.1]]},
    'exdet': {1: [[10, 20, 60, 70, 0.9, 30, 20, 10, 30, 40, 70, 60, 50]]},
    'multi_pose': {1: [[10, 20, 60, 70, 0.9, 15, 25, 55, 65]]},
    'ddd': {1: [[0.1, 10, 20, 60, 70, 1.5, 1.6, 4, 0, 1.6, 20, 0.2, 0.9]]},
}


def fake_detector(opt, on_run):
    """The task's detector without a network: finds the same in every image; `on_run` may interfere."""

    class FakeDetector(detector_factory[opt.task]):
        def __init__(self):
            self.opt, self.runs = opt, 0
            self.calib, self.default_noted, self.missing_noted = DEFAULT_CALIB, False, set()  # ddd

        def run(self, image, meta):
            assert image.dtype == np.uint8 and image.ndim == 3
            self.runs += 1
            on_run(self.runs)
            results = {cls: np.array(rows, np.float32) for cls, rows in ROWS[opt.task].items()}
            scores = {'keypoint_scores': {1: np.array([[0.8, 0.05]])}} if opt.task == 'multi_pose' else {}
            return {'results': results, **scores, **dict.fromkeys(TIMES, 0.5)}

    return FakeDetector()


@pytest.fixture
def look(monkeypatch, tmp_path):
    """Runs demo.main on the fake detector, without a screen; returns the output folder."""
    monkeypatch.delenv('DISPLAY', raising=False)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    monkeypatch.setattr(cv2, 'imshow', lambda *_: pytest.fail('cv2.imshow without a display aborts the process'))
    media.has_display.cache_clear()

    def run(path, task='ctdet', output=tmp_path / 'out', on_run=lambda count: None, **options):
        opt = SimpleNamespace(
            dtype='float32',
            device=torch.device('cpu'),
            task=task,
            demo=str(path),
            output=str(output),
            save_dir=str(tmp_path / 'exp'),
            save_video='',
            no_display=False,
            vis_thresh=0.3,
            debugger_theme='white',
            class_names=['cat', 'dog'],
            skeleton=[(0, 1)] if task == 'multi_pose' else None,
            calib='',
            max_pixels=10**6,
            every=1,
            min_score=0.0,
            save_csv=False,
            save_txt=False,
            save_crops=False,
        )
        vars(opt).update(options)
        monkeypatch.setattr('lib.opts.opts', lambda: SimpleNamespace(init=lambda args: opt))
        detector = fake_detector(opt, on_run)
        with monkeypatch.context() as patch:
            patch.setitem(detector_factory, task, lambda opt: detector)
            demo.main()
        return output

    return run


def write_image(path, height=80, width=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))
    return path


def write_video(path, frames=7, fps=12.5, size=(64, 48)):
    writer = media.VideoWriter(path, fps)
    for number in range(frames):
        writer.write(np.full((size[1], size[0], 3), 20 * number, np.uint8))
    writer.close()
    return path


def read_results(folder):
    return json.loads((folder / 'results.json').read_text())


def test_one_image_is_drawn_and_listed_in_full(look, tmp_path, capsys):
    """The list holds every detection, the drawing only those over the threshold; times and places are printed."""
    out = look(write_image(tmp_path / 'in' / 'a.png', 480, 640))
    (entry,) = read_results(out)
    assert (entry['image'], entry['width'], entry['height']) == ('a.png', 640, 480)
    best, last = entry['detections']
    assert best == {'class': 'cat', 'class_id': 1, 'score': pytest.approx(0.9), 'box': [10, 20, 60, 70]}
    assert last['class'] == 'dog' and last['score'] == pytest.approx(0.1)
    image = cv2.imread(str(out / 'a.png'))
    assert image.shape == (480, 640, 3)
    assert (image[70, 15:55] != 90).any(axis=1).all() and (image[5:15, 5] == 90).all()
    printed = capsys.readouterr().out
    assert str(out) in printed and 'net 0.500' in printed


def test_small_images_are_enlarged_so_that_names_are_legible(look, tmp_path):
    """An image of 64 pixels is drawn at 7 times its size, its results are in its own pixels."""
    out = look(write_image(tmp_path / 'in' / 'a.png', 64, 64))
    assert cv2.imread(str(out / 'a.png')).shape == (448, 448, 3)
    assert read_results(out)[0]['detections'][0]['box'] == [10, 20, 60, 70]


@pytest.mark.parametrize(
    ('task', 'extras'),
    [
        ('exdet', {'extreme_points': [[30, 20], [10, 30], [40, 70], [60, 50]]}),
        ('multi_pose', {'keypoints': [[15, 25], [55, 65]], 'keypoint_scores': [0.8, 0.05]}),
        ('ddd', {'dim': [1.5, 1.6, 4], 'location': [0, 1.6, 20], 'rotation_y': 0.2, 'alpha': 0.1}),
    ],
)
def test_each_task_lists_what_it_finds(look, tmp_path, task, extras):
    """Joints, extreme points and 3D boxes are in the list; 3D boxes are drawn from above too."""
    out = look(write_image(tmp_path / 'in' / 'a.jpg'), task)
    (detection,) = read_results(out)[0]['detections']
    assert {key: detection[key] for key in extras} == extras
    assert (out / 'a_bird.png').exists() == (task == 'ddd')


def test_folder_survives_damaged_images_and_equal_stems(look, tmp_path, capsys):
    """Images come in natural order, damaged ones are named, counted and skipped, none overwrites another."""
    folder = tmp_path / 'in'
    for name in ('b10.PNG', 'b2.jpg', 'b2.png', 'b2.bmp'):
        write_image(folder / name)
    (folder / 'b3.jpg').write_bytes((folder / 'b2.jpg').read_bytes()[:200])
    (folder / 'b4.jpg').write_text('not an image')
    (folder / 'notes.txt').write_text('not looked at')
    out = look(folder)
    assert [entry['image'] for entry in read_results(out)] == ['b2.bmp', 'b2.jpg', 'b2.png', 'b10.PNG']
    assert {path.name for path in out.iterdir()} == {'b2.bmp.png', 'b2.jpg', 'b2.png', 'b10.PNG', 'results.json'}
    printed = capsys.readouterr()
    assert 'skipped 2 image(s)' in printed.out and 'b3.jpg' in printed.out and 'b4.jpg' in printed.out


def test_names_that_would_collide_get_a_number(look, tmp_path):
    """A bird's-eye view doesn't overwrite the drawing of an image that has its name."""
    for name in ('a.png', 'a_bird.png'):
        write_image(tmp_path / 'in' / name)
    out = look(tmp_path / 'in', 'ddd')
    names = {path.name for path in out.iterdir()}
    assert names == {'a.png', 'a_bird.png', 'a_bird_1.png', 'a_bird_bird.png', 'results.json'}


def test_video_keeps_length_rate_and_size(look, tmp_path, capsys):
    """The video that is written has as many frames as the one that was read, and results of each."""
    out = look(write_video(tmp_path / 'in' / 'ride.mp4'))
    assert {path.name for path in out.iterdir()} == {'ride.mp4', 'results.json'}
    written = cv2.VideoCapture(str(out / 'ride.mp4'))
    assert written.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    frames = list(media.open_video(out / 'ride.mp4'))
    assert len(frames) == 7 and frames[0].shape == (48, 64, 3)
    assert [(entry['image'], entry['frame']) for entry in read_results(out)] == [('ride.mp4', n) for n in range(7)]
    assert 'frames that the file announces' not in capsys.readouterr().out


@pytest.mark.parametrize(('fps', 'written'), [(119.877, 119.88), (66.123, 66.12), (29.97, 29.97), (0.0001, 0.01)])
def test_odd_frame_rates_are_written(tmp_path, fps, written):
    """Rates that MPEG-4's 16 bits cannot state exactly are rounded, and the video is there."""
    path = write_video(tmp_path / 'x.mp4', frames=3, fps=fps)
    video = media.open_video(path)
    assert len(list(video)) == 3 and video.fps == pytest.approx(written, rel=1e-4)


def test_a_name_that_is_not_utf8_is_opened_and_written(look, tmp_path):
    """Videos and images whose names are in another encoding are read and drawn under the same name."""
    name = os.fsdecode(b'caf\xe9')
    write_video(tmp_path / 'in' / f'{name}.mp4', frames=3)
    out = look(tmp_path / 'in' / f'{name}.mp4')
    assert len(list(media.open_video(out / f'{name}.mp4'))) == 3
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / f'{name}.png').write_bytes(write_image(tmp_path / 'a.png').read_bytes())
    (tmp_path / 'images' / name).write_bytes((tmp_path / 'a.png').read_bytes())
    out = look(tmp_path / 'images', output=tmp_path / 'out2')
    assert (out / f'{name}.png').exists() and read_results(out)[0]['image'] == f'{name}.png'
    assert len(read_results(look(tmp_path / 'images' / name, output=tmp_path / 'out3'))) == 1


def test_longest_names(look, tmp_path):
    """Names of 250 bytes are drawn under theirs, or the beginning of it where an ending does not fit any more."""
    for name in ('n' * 250 + '.jpg', 'é' * 125 + '.bmp', 'z.jpg'):
        (tmp_path / 'in').mkdir(exist_ok=True)
        (tmp_path / 'in' / name).write_bytes(write_image(tmp_path / f'a{name[-4:]}').read_bytes())
    out = look(tmp_path / 'in', 'ddd')
    names = {path.name for path in out.iterdir()}
    assert names > {'n' * 250 + '.jpg', 'n' * 246 + '_bird.png', 'z.jpg', 'z_bird.png'}
    assert len(names) == 7 and len(read_results(out)) == 3


def test_names_with_signs_that_are_no_numbers(look, tmp_path):
    """Superscripts and circled digits sort as letters."""
    for name in ('①.jpg', '1.jpg', '5²3.jpg', '10.jpg'):
        (tmp_path / 'in').mkdir(exist_ok=True)
        (tmp_path / 'in' / name).write_bytes(write_image(tmp_path / 'a.jpg').read_bytes())
    assert [entry['image'] for entry in read_results(look(tmp_path / 'in'))] == ['1.jpg', '5²3.jpg', '10.jpg', '①.jpg']


def test_jfif_and_gif(look, tmp_path, monkeypatch):
    """JFIF is JPEG; a GIF of one frame is an image, one of several a video; OpenCV before 4.11 reads no GIF."""
    folder = tmp_path / 'in'
    folder.mkdir()
    (folder / 'a.jfif').write_bytes(write_image(tmp_path / 'a.jpg').read_bytes())
    frames = [PIL.Image.new('RGB', (100, 80), color) for color in ('red', 'green', 'blue')]
    frames[0].save(folder / 'b.gif')
    frames[0].save(tmp_path / 'moving.gif', save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(folder / 'b.gif')[0, 0], [0, 0, 255])
    with monkeypatch.context() as patch:
        patch.setattr(cv2, 'imdecode', lambda data, flags: None)
        np.testing.assert_array_equal(read_image(folder / 'b.gif')[0, 0], [0, 0, 255])
    out = look(folder)
    assert {path.name for path in out.iterdir()} == {'a.jfif', 'b.gif.png', 'results.json'}
    assert cv2.imread(str(out / 'a.jfif')).shape == (320, 400, 3)
    assert len(read_results(look(folder / 'b.gif', output=tmp_path / 'out2'))) == 1
    out = look(tmp_path / 'moving.gif', output=tmp_path / 'out3')
    assert len(read_results(out)) == 3 and (out / 'moving.mp4').exists()


def test_an_image_over_the_budget_is_skipped(look, tmp_path, capsys):
    """--max_pixels refuses an image by its header; the others are drawn."""
    for name, width in (('a.png', 1000), ('b.png', 1001)):
        write_image(tmp_path / 'in' / name, 1000, width)
    assert [entry['image'] for entry in read_results(look(tmp_path / 'in'))] == ['a.png']
    assert "b.png' has 1001 x 1000 pixels: more than the 1000000 that --max_pixels allows" in capsys.readouterr().out


def test_an_image_too_wide_for_jpeg_is_drawn_as_png(look, tmp_path):
    """JPEG ends at 65,500 pixels a side: the drawing of a wider TIFF or PNG named .jpg becomes PNG."""
    data = cv2.imencode('.png', np.full((3, 66000, 3), 90, np.uint8))[1].tobytes()
    (tmp_path / 'wide.jpg').write_bytes(data)
    out = look(tmp_path / 'wide.jpg')
    assert cv2.imread(str(out / 'wide.jpg.png')).shape == (3, 66000, 3)


def test_numbers_that_are_not_finite_are_never_written(look, tmp_path, monkeypatch):
    """A score of NaN ends the run with its place; no JSON with NaN is left."""
    monkeypatch.setitem(ROWS, 'ctdet', {1: [[10, 20, 60, 70, float('nan')]]})
    with pytest.raises(UserError, match=r'detections\[0\].score is nan, which JSON cannot hold'):
        look(write_image(tmp_path / 'in' / 'a.png'))
    assert not list((tmp_path / 'out').glob('*.json'))


def test_full_disk_is_one_line(look, tmp_path, monkeypatch):
    """An image that cannot be written is named, and what is wrong with the disk; no half file stays."""
    write_image(tmp_path / 'in' / 'a.png')

    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(UserError, match=r"a\.png' cannot be written: No space left on device"):
        look(tmp_path / 'in')
    assert not list((tmp_path / 'out').iterdir())


def test_video_from_above(look, tmp_path):
    """ddd writes a second video, of the bird's-eye views, beside the first."""
    out = look(write_video(tmp_path / 'in' / 'ride.mp4'), 'ddd')
    assert {path.name for path in out.iterdir()} == {'ride.mp4', 'ride_bird.mp4', 'results.json'}
    assert len(list(media.open_video(out / 'ride_bird.mp4'))) == 7
    before = (out / 'ride_bird.mp4').read_bytes()
    with pytest.raises(UserError, match='would overwrite'):
        look(out / 'ride_bird.mp4', 'ddd', output=tmp_path / 'other', save_video=str(out / 'ride.mp4'))
    assert (out / 'ride_bird.mp4').read_bytes() == before


def test_save_video_names_the_file(look, tmp_path):
    """--save_video moves the video elsewhere, and is refused where there is none."""
    video = write_video(tmp_path / 'in' / 'ride.mp4', frames=2)
    look(video, save_video=str(tmp_path / 'elsewhere' / 'x.mp4'))
    assert len(list(media.open_video(tmp_path / 'elsewhere' / 'x.mp4'))) == 2
    with pytest.raises(UserError, match='--save_video needs a video'):
        look(write_image(tmp_path / 'in' / 'a.png'), save_video='x.mp4')


def test_ctrl_c_keeps_what_was_done(look, tmp_path, capsys):
    """An interrupted video leaves its first frames and their results, whole, and nothing else."""

    def interrupt(count):
        if count == 4:
            raise KeyboardInterrupt

    out = tmp_path / 'out'
    with pytest.raises(KeyboardInterrupt):
        look(write_video(tmp_path / 'in' / 'ride.mp4'), on_run=interrupt)
    assert 'announces' not in capsys.readouterr().out  # which is said of damaged videos
    assert len(read_results(out)) == 3 and len(list(media.open_video(out / 'ride.mp4'))) == 3
    assert {path.name for path in out.iterdir()} == {'ride.mp4', 'results.json'}


def test_sigterm_keeps_what_was_done(look, tmp_path):
    """SIGTERM ends a video as Ctrl-C does, and means again afterwards what it meant before."""
    before = signal.getsignal(signal.SIGTERM)
    out = tmp_path / 'out'
    with pytest.raises(KeyboardInterrupt):
        look(
            write_video(tmp_path / 'in' / 'ride.mp4'),
            on_run=lambda count: os.kill(os.getpid(), signal.SIGTERM) if count == 4 else None,
        )
    assert len(read_results(out)) == 3 and len(list(media.open_video(out / 'ride.mp4'))) == 3
    assert signal.getsignal(signal.SIGTERM) == before


def test_with_a_display_images_are_shown_until_esc(look, tmp_path, monkeypatch):
    """Images wait for a key, Esc ends, and what was shown is saved too; --no_display opens no window."""
    for name in ('a.png', 'b.png', 'c.png'):
        write_image(tmp_path / 'in' / name)
    shown = []
    monkeypatch.setattr(media, 'has_display', lambda: True)
    monkeypatch.setattr(media, 'show_images', lambda images, pause: shown.append(pause) or len(shown) == 2)
    assert len(read_results(look(tmp_path / 'in'))) == 2 and shown == [True, True]
    assert len(read_results(look(tmp_path / 'in', no_display=True))) == 3 and len(shown) == 2


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('', 'missing'),
        ('nowhere.jpg', 'no such file'),
        ('empty', 'no image in'),
        ('broken.jpg', 'broken.jpg'),
        ('broken.mp4', 'cannot be opened as a video'),
        ('notes.txt', 'cannot be opened as a video'),
        ('webcam:63', 'camera 63 does not open'),
        ('webcam:x', 'a camera is'),
        ('webcam:²', 'a camera is'),
        ('webcam:٣', 'a camera is'),
        ('webcam:99999999999999', 'a camera is'),
        ('all_damaged', 'nothing could be read'),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(look, tmp_path, monkeypatch, name, message):
    """Wrong paths, empty folders, damaged files and missing cameras are errors of one line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'all_damaged').mkdir()
    for broken in ('broken.jpg', 'broken.mp4', 'notes.txt', 'all_damaged/a.jpg'):
        (tmp_path / broken).write_text('neither an image nor a video')
    with pytest.raises(UserError, match=message) as caught:
        look(name)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'out' / 'results.json').exists()


def test_outputs_never_overwrite_what_is_read(look, tmp_path):
    """The folder or the video that is read is refused as output, and left as it was."""
    image = write_image(tmp_path / 'in' / 'a.png')
    video = write_video(tmp_path / 'in' / 'ride.mp4')
    before = image.read_bytes(), video.read_bytes()
    for source in (image, tmp_path / 'in', video):
        with pytest.raises(UserError, match='would overwrite'):
            look(source, output=tmp_path / 'in')
    assert (image.read_bytes(), video.read_bytes()) == before


def test_originals_behind_links_are_never_overwritten(look, tmp_path):
    """Images that are read through symbolic or hard links stay as they are, whichever folder is the output."""
    original = write_image(tmp_path / 'originals' / 'a.png')
    before = original.read_bytes()
    links = tmp_path / 'links'
    links.mkdir()
    (links / 'a.png').symlink_to(original)
    hard = tmp_path / 'hard'
    hard.mkdir()
    (hard / 'a.png').hardlink_to(original)
    for source in (links, links / 'a.png', hard):
        with pytest.raises(UserError, match='would overwrite'):
            look(source, output=original.parent)
        assert original.read_bytes() == before and [path.name for path in original.parent.iterdir()] == ['a.png']
    assert len(read_results(look(links))) == 1 and original.read_bytes() == before


def test_files_of_others_are_not_replaced(look, tmp_path):
    """A file in --output that the demo did not write is refused before any work; its own are replaced."""
    image = write_image(tmp_path / 'in' / 'a.png')
    mine = write_image(tmp_path / 'out' / 'a.png', 10, 10)
    before = mine.read_bytes()
    never = lambda count: pytest.fail('the detector ran')  # noqa: E731
    with pytest.raises(UserError, match='no earlier output'):
        look(image, on_run=never)
    assert mine.read_bytes() == before
    mine.unlink()
    results = tmp_path / 'out' / 'results.json'
    results.write_text('[{"image_id": 1}]')  # as test.py writes
    with pytest.raises(UserError, match=r'results\.json. exists'):
        look(image, on_run=never)
    results.unlink()
    look(image)
    assert len(read_results(look(image))) == 1  # once more over its own


def test_a_killed_run_leaves_the_folder_its_own(look, tmp_path):
    """The drawings of a run that was killed are replaced by the next one."""
    image = write_image(tmp_path / 'in' / 'a.png')
    out = look(image)
    (out / 'results.json').rename(out / '.results-abc.json')  # not moved to its place yet
    assert len(read_results(look(image))) == 1


def test_output_folder_that_cannot_be_written_is_one_line(look, tmp_path, monkeypatch):
    """A folder that cannot be made, or is read-only, is refused before any work is done."""
    image = write_image(tmp_path / 'in' / 'a.png')
    never = lambda count: pytest.fail('the detector ran')  # noqa: E731
    with pytest.raises(UserError, match='cannot make the output folder'):
        look(image, output=image / 'out', on_run=never)
    monkeypatch.setattr(files.os, 'access', lambda *_: False)
    with pytest.raises(UserError, match='read-only'):
        look(image, on_run=never)


def test_default_output_is_in_the_experiment(look, tmp_path):
    """Without --output the results are in SAVE_DIR/demo."""
    look(write_image(tmp_path / 'in' / 'a.png'), output='')
    assert (tmp_path / 'exp' / 'demo' / 'results.json').exists()


def test_no_video_is_left_when_the_encoder_fails(tmp_path):
    """A size that cannot be encoded is an error of one line and leaves no file."""
    writer = media.VideoWriter(tmp_path / 'x.mp4', 10)
    with pytest.raises(UserError, match='1 x 1 pixels'):
        writer.write(np.zeros((1, 1, 3), np.uint8))
    writer.close()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def saved(tmp_path):
    """A COCO-format file of two images, one of them missing on the disk, and results of three."""
    write_image(tmp_path / 'images' / 'a.png', 480, 640)
    images = [{'id': n, 'file_name': name, 'width': 640, 'height': 480} for n, name in ((7, 'a.png'), (8, 'b.png'))]
    person = {'id': 5, 'name': 'person', 'keypoints': ['x', 'y'], 'skeleton': [[1, 2]]}
    truth = {'id': 1, 'image_id': 7, 'category_id': 5, 'bbox': [300, 300, 100, 100]}
    dataset = {'images': images, 'categories': [person], 'annotations': [truth]}
    row = {'category_id': 5, 'bbox': [100, 100, 200, 200], 'score': 0.9}
    joints = {'keypoints': [120, 350, 1, 250, 350, 1], 'extreme_points': [400, 20, 380, 40, 400, 60, 420, 40]}
    results = [{**row, **joints, 'image_id': 7}, {**row, 'image_id': 99}, {**row, 'image_id': 7, 'score': 0.1}]
    (tmp_path / 'truth.json').write_text(json.dumps(dataset))
    (tmp_path / 'results.json').write_text(json.dumps(results))
    return tmp_path


def test_vis_pred_draws_a_results_file(saved, capsys):
    """Boxes, limbs and extreme points are where the file says; missing images are counted."""
    arguments = [str(saved / name) for name in ('truth.json', 'results.json', 'images')]
    vis_pred.main([*arguments, '--output', str(saved / 'out'), '--truth'])
    assert [path.name for path in (saved / 'out').iterdir()] == ['a.png']
    image = cv2.imread(str(saved / 'out' / 'a.png'))
    captions, image = image[:-480], image[-480:]
    assert captions[:, :640].any() and captions[:, 640:].any()
    left, right = (half != 90 for half in (image[:, :640], image[:, 640:]))
    assert left[400, 310:390].any(1).all() and not left[200, 100:300].any()
    assert right[300, 110:290].any(1).all() and right[350, 130:240].any(1).all() and right[20, 400].any()
    assert not right[400, 310:390].any()
    printed = capsys.readouterr()
    assert '1 image(s) skipped' in printed.out and 'b.png' in printed.err and '99' in printed.out


@pytest.mark.parametrize(
    ('truth', 'results', 'message'),
    [
        ({'images': 3}, [], 'not COCO format'),
        ({'images': [{'id': 1}]}, [], "no 'file_name'"),
        (None, {'a': 1}, 'not a list of'),
        (None, [{'image_id': 7, 'category_id': 5, 'bbox': [1, 2]}], 'not a list of'),
    ],
)
def test_vis_pred_names_files_of_another_kind(saved, truth, results, message):
    """Files that aren't what they should be are refused in one line."""
    if truth is not None:
        (saved / 'truth.json').write_text(json.dumps(truth))
    (saved / 'results.json').write_text(json.dumps(results))
    arguments = [str(saved / name) for name in ('truth.json', 'results.json', 'images')]
    with pytest.raises(vis_pred.UserError, match=message):
        vis_pred.main([*arguments, '--output', str(saved / 'out')])


def test_vis_pred_does_not_overwrite_the_images(saved):
    """The folder of the images is refused as output."""
    arguments = [str(saved / name) for name in ('truth.json', 'results.json', 'images')]
    with pytest.raises(vis_pred.UserError, match='would overwrite'):
        vis_pred.main([*arguments, '--output', str(saved / 'images')])


def test_folder_of_calibrations_with_faults(look, tmp_path, capsys):
    """An image whose calibration is malformed is skipped, one without any is named; an empty folder is refused."""
    for name in ('bad', 'good', 'lost'):
        write_image(tmp_path / 'in' / f'{name}.png')
    calibs = tmp_path / 'calib'
    calibs.mkdir()
    with pytest.raises(UserError, match='holds no calibration'):
        common_calib(str(calibs))
    (calibs / 'good.txt').write_text('P2: 200 0 150 0 0 200 100 0 0 0 1 0')
    (calibs / 'bad.txt').write_text('junk')
    out = look(tmp_path / 'in', 'ddd', calib=str(calibs))
    assert [entry['image'] for entry in read_results(out)] == ['good.png', 'lost.png']
    printed = capsys.readouterr()
    assert "bad.txt' is no KITTI calibration" in printed.out and "found no line 'P2:'" in printed.out
    assert 'skipped 1 image(s)' in printed.out and "no calibration for 'lost.png'" in printed.out


def test_folder_of_calibrations(look, tmp_path):
    """`--calib FOLDER`: each image is drawn by the file of its name, one without a file by the published camera."""
    calibs, images = tmp_path / 'calib', tmp_path / 'pictures'
    calibs.mkdir()
    images.mkdir()
    grey = np.full((200, 300, 3), 127, np.uint8)
    for name in ('near', 'far', 'none'):
        cv2.imwrite(str(images / f'{name}.png'), grey)
    for name, focus in (('near', 200), ('far', 400)):
        (calibs / f'{name}.txt').write_text(f'P2: {focus} 0 150 0 0 {focus} 100 0 0 0 1 0')
    drawn = look(images, task='ddd', calib=str(calibs))
    changed = {name: (cv2.imread(str(drawn / f'{name}.png')) != 127).any(2) for name in ('near', 'far', 'none')}
    assert changed['near'].any() and changed['far'].any()
    assert not np.array_equal(changed['near'], changed['far'])
    assert not np.array_equal(changed['near'], changed['none'])


def test_what_is_drawn_goes_into_labels_crops_and_a_table(look, tmp_path, capsys):
    """Labels and cut-outs hold what is drawn, list and table what reaches --min_score, in folders as the images lie."""
    for name in ('a.png', 'b/a.png'):
        write_image(tmp_path / 'in' / name)
    options = {'save_txt': True, 'save_crops': True, 'save_csv': True}
    out = look(tmp_path / 'in', min_score=0.05, **options)
    files = {path.relative_to(out).as_posix() for path in out.rglob('*') if path.is_file()}
    expected = {'results.json', 'detections.csv', 'classes.txt', 'a.png', 'b/a.png', 'labels/a.txt', 'labels/b/a.txt'}
    assert files == expected | {'crops/cat/a_0.jpg', 'crops/cat/b/a_0.jpg'}
    assert (out / 'labels/b/a.txt').read_text() == '0 0.350000 0.562500 0.500000 0.625000\n'
    assert (out / 'classes.txt').read_text() == 'cat\ndog\n'
    assert cv2.imread(str(out / 'crops/cat/a_0.jpg')).shape == (50, 50, 3)
    rows = (out / 'detections.csv').read_text().splitlines()
    assert len(rows) == 5 and rows[1].startswith('a.png,,cat,1,0.8999') and rows[4].startswith('b/a.png,,dog,2,0.1')
    assert [len(entry['detections']) for entry in read_results(out)] == [2, 2]
    assert 'objects drawn: 2 (2 cat)' in capsys.readouterr().out
    look(tmp_path / 'in', min_score=0.5, **options)  # over its own outputs
    assert [len(entry['detections']) for entry in read_results(out)] == [1, 1]
    assert len((out / 'detections.csv').read_text().splitlines()) == 3


def test_files_of_others_in_subfolders_stay(look, tmp_path):
    """A label file that the demo did not write is refused, and left as it was."""
    write_image(tmp_path / 'in' / 'a.png')
    (tmp_path / 'out/labels').mkdir(parents=True)
    (tmp_path / 'out/labels/a.txt').write_text('mine')
    with pytest.raises(UserError, match='no earlier output'):
        look(tmp_path / 'in', save_txt=True)
    assert (tmp_path / 'out/labels/a.txt').read_text() == 'mine'


def test_every_other_frame(look, tmp_path):
    """--every 3 looks at frames 0, 3, 6; the video that is written lasts as long, and labels carry the numbers."""
    out = look(write_video(tmp_path / 'in' / 'ride.mp4'), every=3, save_txt=True)
    assert [entry['frame'] for entry in read_results(out)] == [0, 3, 6]
    video = media.open_video(out / 'ride.mp4')
    assert len(list(video)) == 3 and video.fps == pytest.approx(12.5 / 3, abs=0.01)
    assert {path.name for path in (out / 'labels').iterdir()} == {'ride_0.txt', 'ride_3.txt', 'ride_6.txt'}


def test_results_inside_the_folder_are_not_looked_at(look, tmp_path):
    """An --output in the folder that is looked at is left out of it, the second time too."""
    write_image(tmp_path / 'in' / 'a.png')
    for _ in range(2):
        out = look(tmp_path / 'in', output=tmp_path / 'in' / 'out')
        assert [entry['image'] for entry in read_results(out)] == ['a.png']
