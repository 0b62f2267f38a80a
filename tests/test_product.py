"""The project as a product: one command, one version, kernels that may be missing, results for other programs."""

import csv
import http.server
import importlib
import json
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from lib.detectors.detector_factory import detector_factory
from lib.external import KERNELS
from lib.opts import build_parser
from lib.programs import command
from lib.utils import media
from lib.utils.errors import UserError
from lib.utils.media import addresses, encoders
from lib.utils.media.labels import table_row, yolo_lines
from lib.utils.media.outputs import CsvTable
from lib.utils.media.sources import open_source
from lib.version import __version__

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / 'src'
ENV = {**os.environ, 'PYTHONPATH': f'{SRC}{os.pathsep}{ROOT / "tests"}'}


def run(*args, **env) -> subprocess.CompletedProcess:
    """A Python process with the sources in its path."""
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=120, env=ENV | env)


# ------------------------------------------------------------------------------------------------ the command


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['trian'], "no command 'trian'; did you mean 'train'?"),
        (['x'], "no command 'x' (centernet --help lists them)"),
        (['convert'], "'centernet convert' takes one of: voc, yolo"),
        (['eval', 'x'], "'centernet eval x': expected one of coco, coco_hp, voc, kitti"),
    ],
)
def test_commands_that_are_none(words, message):
    """A wrong word is one line that says what is right."""
    with pytest.raises(UserError) as caught:
        command.command_name(words)
    assert message in str(caught.value)


def test_every_program_and_tool_is_a_command():
    """No tool is left out, and each command has a module with a `main`, below the package or in src/tools."""
    modules = {entry.module for entry in command.COMMANDS.values()}
    tools = {f'tools.{path.stem}' for path in (SRC / 'tools').glob('[!_]*.py')}
    programs = {f'programs.{name}' for name in ('train', 'test', 'demo', 'export')}
    assert modules == tools | programs
    for module in modules:
        place = (
            SRC / f'{module.replace(".", "/")}.py' if module in tools else SRC / f'lib/{module.replace(".", "/")}.py'
        )
        assert '\ndef main(' in place.read_text()


def test_help_of_the_command(monkeypatch, capsys):
    """--help lists every command; a program's own help says how it is called, in its examples too."""
    monkeypatch.setattr('sys.argv', ['centernet'])
    command.run()
    shown = capsys.readouterr().out
    assert all(f'  {name} ' in shown for name in command.COMMANDS)
    monkeypatch.setattr('sys.argv', ['centernet train', '--help'])
    shown = build_parser().format_help()
    assert shown.startswith('usage: centernet train TASK') and 'centernet toy data/toy' in shown
    assert 'python main.py' not in shown and '../' not in shown and 'convert extreme' in shown
    monkeypatch.setattr('sys.argv', ['main.py', '--help'])
    shown = build_parser().format_help()
    assert shown.startswith('usage: main.py TASK') and 'python tools/make_toy_data.py ../data/toy' in shown


def test_one_version():
    """The package, its command and the metadata of the build have the same version, written in one file."""
    import tomllib

    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())
    assert project['tool']['setuptools']['dynamic']['version'] == {'attr': 'centernet.version.__version__'}
    assert 'version' in project['project']['dynamic']
    assert run('-m', 'lib', '--version').stdout == f'centernet {__version__}\n'
    assert importlib.import_module('lib').__version__ == __version__


def test_training_without_tensorboard(monkeypatch, tmp_path, caplog):
    """Without the package there are no events, and one line says so."""
    from lib.logger import open_events

    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    with caplog.at_level('INFO', logger='lib'):
        assert open_events(str(tmp_path / 'logs')) is None
    assert 'pip install tensorboard' in caplog.text and not (tmp_path / 'logs').exists()


# ------------------------------------------------------------------------------------------------ missing kernels

SLOW = """
import json, sys
import numpy as np
import kernel_calls
import lib
from lib.external import KERNELS, is_compiled
assert not any(map(is_compiled, KERNELS))
for name in KERNELS:
    assert 'slow' in sys.modules[f'lib.external.{name}'].__file__
for name, make in kernel_calls.KERNELS.items():
    for seed in range(2 if '.' in name else 1):
        function, arguments, check = make(np.random.default_rng(seed))
        check(function(**arguments))
detector = lib.load_detector(sys.argv[1], gpus=-1, dtype='float32', nms=True)
found = detector.run(sys.argv[2])['results']
print(json.dumps({cls: rows[:10].tolist() for cls, rows in found.items()}))
"""


def test_every_kernel_has_a_slow_stand_in(tmp_path, toy):
    """Without compiled kernels all functions give what the kernels' tests ask for, and a detector what it gave.

    One line says that they are slow.
    """
    import lib
    from helpers import save_random_network

    checkpoint = str(save_random_network(tmp_path / 'model.pth', 'ctdet', 'resdcn_18', 64))
    image = str(min(Path(toy, 'images').rglob('*.jpg')))
    done = run('-c', SLOW, checkpoint, image, CENTERNET_NO_KERNELS='1')
    assert done.returncode == 0, done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith('slow kernels of NumPy stand in for')]
    assert warning.endswith(
        'the compiled dcn, focal, nms, peaks, raster, upsample, winograd (CENTERNET_NO_KERNELS is set)'
    )
    want = lib.load_detector(checkpoint, gpus=-1, dtype='float32', nms=True).run(image)['results']
    assert sum(map(len, want.values())) > 20
    for cls, rows in json.loads(done.stdout).items():
        np.testing.assert_allclose(rows, want[int(cls)][:10], atol=0.05)
    for folder, ending in (('external', 'pyx'), ('external/slow', 'py')):
        assert set(KERNELS) == {path.stem for path in (SRC / 'lib' / folder).glob(f'[!_]*.{ending}')}


# ------------------------------------------------------------------------------------------------ what demo.py looks at


def write_image(path, height=60, width=80, shade=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), shade, np.uint8))
    return path


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; `/part.png` breaks off, `/moved/...` leads elsewhere, `/live` is a camera's stream."""

    def do_GET(self):
        if self.path == '/part.png':
            self.send_response(200)
            self.send_header('Content-Type', 'image/png')
            self.send_header('Content-Length', '1000')
            self.end_headers()
            self.wfile.write(b'x' * 10)
        elif self.path.startswith('/moved'):
            self.send_response(302)
            self.send_header('Location', self.path.removeprefix('/moved'))
            self.end_headers()
        elif self.path == '/live':
            self.send_response(200)
            self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=x')
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def web(tmp_path):
    """A server of the folder `web` in `tmp_path`: its address."""
    (tmp_path / 'web').mkdir()
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Server, directory=tmp_path / 'web'))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


def test_images_and_videos_of_the_web(web, tmp_path):
    """An address gives its image or video, through redirections; the download is removed with the source."""
    write_image(tmp_path / 'web/a b.png', shade=70)
    writer = media.VideoWriter(tmp_path / 'web/ride.mp4', 10)
    for number in range(5):
        writer.write(np.full((48, 64, 3), 40 * number, np.uint8))
    writer.close()
    source = open_source(f'{web}/moved/a%20b.png?width=3')
    (frame,) = source
    assert frame.name == 'a_b.png' and (frame.image == 70).all() and frame.image.shape == (60, 80, 3)
    source = open_source(f'{web}/ride.mp4')
    folder = Path(source.download.name)
    assert [(each.name, each.number) for each in source] == [('ride.mp4', number) for number in range(5)]
    assert folder.is_dir()
    del source
    assert not folder.exists()


def test_addresses_that_cannot_be_looked_at(web, tmp_path, monkeypatch):
    """What is missing, a page, too large, broken off, of another kind, or on no server, is one line; no file stays."""
    (tmp_path / 'web/page.html').write_text('<p>no image</p>')
    (tmp_path / 'web/notes.bin').write_bytes(b'neither' * 40)
    write_image(tmp_path / 'web/large.bmp', 200, 200)
    monkeypatch.setattr(addresses, 'LARGEST', 1000)
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'downloads'))
    (tmp_path / 'downloads').mkdir()
    monkeypatch.setattr(addresses.download, '__defaults__', (100_000, 5))
    host = web.removeprefix('http://')
    for address, message in (
        (f'{web}/nowhere.jpg', 'answered 404 File not found'),
        (f'{web}/page.html', 'is a page'),
        (f'{web}/large.bmp', 'is larger than 0 MB'),
        (f'{web}/part.png', 'sent 10 of 1000 bytes'),
        (f'{web}/notes.bin', 'neither an image nor a video'),
        (f'http://user:secret@{host}/nowhere.jpg', f"'http://{host}/nowhere.jpg'"),
        ('http://127.0.0.1:9/a.jpg', 'cannot be downloaded: '),
        ('http://', 'cannot be downloaded: '),
        (f'{web}/live', 'does not open'),
        ('rtsp://user:secret@127.0.0.1:9/live', "stream 'rtsp://127.0.0.1:9/live' does not open"),
    ):
        with pytest.raises(UserError) as caught:
            open_source(address)
        assert message in str(caught.value) and '\n' not in str(caught.value) and 'secret' not in str(caught.value)
        assert not list((tmp_path / 'downloads').iterdir())


def test_folders_in_folders_patterns_and_every(tmp_path):
    """Images are named from the folder on, in natural order, without hidden ones and the folder of the results."""
    for name in ('a10.png', 'a9.png', 'b/a.png', 'b/c/d.png', '.hidden/x.png', 'out/a9.png'):
        write_image(tmp_path / 'in' / name)
    source = open_source(str(tmp_path / 'in'), but=tmp_path / 'in/out')
    assert [frame.name for frame in source] == source.names == ['a9.png', 'a10.png', 'b/a.png', 'b/c/d.png']
    assert open_source(str(tmp_path / 'in'), every=2, but=tmp_path / 'in/out').names == ['a9.png', 'b/a.png']
    assert open_source(str(tmp_path / 'in/**/*.png')).names[-2:] == ['b/c/d.png', 'out/a9.png']
    assert open_source(str(tmp_path / 'in/b/*.png')).names == ['a.png']
    for name in ('x.mp4', 'y.mp4'):
        (tmp_path / name).write_bytes(b'no video')
    for pattern, message in (
        ('*.jpg', 'no file fits'),
        ('*.mp4', 'no image is among the 2 files'),
        ('x*', 'opened as'),
    ):
        with pytest.raises(UserError, match=message):
            open_source(str(tmp_path / pattern))


# ------------------------------------------------------------------------------------------------ what demo.py writes


def codec_of(path) -> str:
    """The four letters that an MP4 file names its codec by: avc1 is H.264."""
    data = Path(path).read_bytes()
    (code,) = [code for code in (b'avc1', b'mp4v') if data.find(code + bytes(6)) > 0]
    return code.decode()


def test_videos_are_h264(tmp_path, monkeypatch, caplog):
    """Browsers play H.264 with colours of half the resolution; MPEG-4 is written, and said, only without an encoder."""
    pytest.importorskip('av')
    frames = [np.full((49, 65, 3), (20 * number, 120, 200), np.uint8) for number in range(8)]

    def write(name):
        writer = media.VideoWriter(tmp_path / name, 12.5)
        for frame in frames:
            writer.write(frame)
        writer.close()
        return tmp_path / name

    path = write('a.mp4')
    data = path.read_bytes()
    assert codec_of(path) == 'avc1' and data.find(b'moov') < data.find(b'mdat')
    video = media.open_video(path)
    assert video.fps == pytest.approx(12.5) and video.length == 8
    for got, frame in zip(video, frames, strict=True):
        assert got.shape == (48, 64, 3)
        np.testing.assert_allclose(got[20, 20], frame[20, 20], atol=12)
    for name in ('c.avi', 'd.mkv', 'e.mov'):
        assert len(list(media.open_video(write(name)))) == 8
    assert (tmp_path / 'c.avi').read_bytes()[:4] == b'RIFF'
    monkeypatch.setattr(encoders, 'H264', ())
    with caplog.at_level('WARNING', logger='lib'):
        assert codec_of(write('b.mp4')) == 'mp4v'
    assert 'which browsers do not play (pip install av' in caplog.text


def test_yolo_lines():
    """Centre and size in shares of the image, cut at its border; joints with their visibility."""
    box = {'class': 'cat', 'class_id': 3, 'score': 0.5, 'box': [10, 20, 30, 60]}
    over = {**box, 'class_id': 1, 'box': [-50, 0, 50, 200], 'keypoints': [[50, 25], [300, 100]]}
    assert yolo_lines([box, {**over, 'keypoint_scores': [0.9, 0.02]}], (200, 100)) == [
        '2 0.100000 0.400000 0.100000 0.400000',
        '0 0.125000 0.500000 0.250000 1.000000 0.250000 0.250000 2 1.000000 1.000000 1',
    ]


def test_table_rows():
    """A row has a column for each number of a detection."""
    found = {'class': 'car', 'class_id': 1, 'score': 0.5, 'box': [1, 2, 3, 4]}
    solid = {**found, 'alpha': 0.1, 'dim': [1.5, 1.6, 4], 'location': [0, 1, 20], 'rotation_y': 0.2}
    row = table_row(solid, 'a.png', None)
    assert list(row)[:9] == ['image', 'frame', 'class', 'class_id', 'score', 'x1', 'y1', 'x2', 'y2']
    assert (row['frame'], row['x2'], row['height'], row['length'], row['location_z']) == ('', 3, 1.5, 4, 20)
    person = table_row({**found, 'keypoints': [[5, 6], [7, 8]], 'keypoint_scores': [0.3, 0.4]}, 'v.mp4', 12)
    assert (person['frame'], person['keypoint_2_y'], person['keypoint_2_score']) == (12, 8, 0.4)


def test_table_without_rows(tmp_path):
    """A table of nothing has its head; a table of something as many lines as rows."""
    empty, full = CsvTable(tmp_path / 'a.csv'), CsvTable(tmp_path / 'b.csv')
    full.append(table_row({'class': 'a,"b"', 'class_id': 1, 'score': 0.5, 'box': [1, 2, 3, 4]}, 'ä.png', None))
    empty.close()
    full.close()
    with open(tmp_path / 'b.csv', newline='', encoding='utf-8') as file:
        (row,) = csv.DictReader(file)
    assert (row['class'], row['image'], row['x1']) == ('a,"b"', 'ä.png', '1')
    assert (tmp_path / 'a.csv').read_text() == 'image,frame,class,class_id,score,x1,y1,x2,y2\n'


# ------------------------------------------------------------------------------------------------ in programs of others


@pytest.fixture(scope='module')
def detector():
    """A ctdet detector with a random network, 64 x 64."""
    from lib.opts import opts

    torch.manual_seed(0)
    args = ['ctdet', '--gpus', '-1', '--arch', 'res_18', '--input_res', '64', '--dtype', 'float32', '--dataset', 'coco']
    return detector_factory['ctdet'](opts().init([*args, '--vis_thresh', '0']))


def test_images_of_pillow(detector, tmp_path):
    """RGB, grey and palette images of Pillow, upright by their EXIF, give what the same file gives."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    upright = PIL.Image.fromarray(pixels)
    turned = upright.transpose(PIL.Image.Transpose.ROTATE_90)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.save(tmp_path / 'turned.png', exif=exif)
    want = detector.run(np.ascontiguousarray(pixels[..., ::-1]))['results']
    for image in (upright, PIL.Image.open(tmp_path / 'turned.png'), tmp_path / 'turned.png'):
        got = detector.run(image)['results']
        for cls, rows in want.items():
            np.testing.assert_array_equal(got[cls], rows)


def test_to_supervision(detector, monkeypatch):
    """Boxes, scores, classes from 0 and their names; what a task has beside them is in `data`."""
    rows = {1: np.array([[1, 2, 30, 40, 0.9]], np.float32), 3: np.array([[5, 6, 7, 8, 0.4]], np.float32)}
    made = {}
    stand_in = type('Detections', (), {'__init__': lambda self, **fields: made.update(fields)})
    monkeypatch.setitem(sys.modules, 'supervision', type(sys)('supervision'))
    monkeypatch.setattr(sys.modules['supervision'], 'Detections', stand_in, raising=False)
    monkeypatch.setattr(detector.opt, 'vis_thresh', 0.3)
    assert isinstance(detector.to_supervision({'results': rows}), stand_in)
    np.testing.assert_array_equal(made['xyxy'], [[1, 2, 30, 40], [5, 6, 7, 8]])
    np.testing.assert_allclose(made['confidence'], [0.9, 0.4])
    assert made['class_id'].tolist() == [0, 2] and made['data']['class_name'].tolist() == ['person', 'car']
    monkeypatch.setattr(detector.opt, 'vis_thresh', 0.5)
    detector.to_supervision({'results': rows})
    assert made['xyxy'].shape == (1, 4)
    monkeypatch.setitem(sys.modules, 'supervision', None)
    with pytest.raises(UserError, match='pip install supervision'):
        detector.to_supervision({'results': rows})


def test_to_supervision_as_it_is(detector):
    """The package itself takes what it is given, none found among it."""
    supervision = pytest.importorskip('supervision')
    rows = {1: np.array([[1, 2, 30, 40, 0.9], [3, 4, 5, 6, 0.8]], np.float32)}
    found = detector.to_supervision({'results': rows})
    assert (
        isinstance(found, supervision.Detections) and len(found) == 2 and found['class_name'].tolist() == ['person'] * 2
    )
    assert len(detector.to_supervision({'results': {}})) == 0
