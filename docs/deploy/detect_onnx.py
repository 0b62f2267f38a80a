"""Detect in an image with a file of export.py, without PyTorch: NumPy, OpenCV and onnxruntime are all that it needs.

    python detect_onnx.py MODEL.onnx IMAGE [--output DRAWING] [--threshold 0.3]

Prints a JSON line for each detection, the best first, in pixels of the image (metres and radians for 3D), and writes
the image with the detections drawn on it. Copy from it what your program needs.
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

COLOURS = ((255, 128, 0), (0, 128, 255), (0, 200, 0), (200, 0, 200), (0, 200, 200), (128, 0, 255))


def load(path: str) -> tuple[onnxruntime.InferenceSession, dict]:
    """Open a model; returns its session, and its facts (task, class_names, input_h, ...), which are JSON in it."""
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    facts = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    if facts.get('program') != 'centernet' or facts['raw']:
        sys.exit(f'error: {path} is not of export.py, or was exported with --raw')
    return session, facts


def to_input(image: np.ndarray, facts: dict) -> tuple[np.ndarray, np.ndarray]:
    """Fit an image uint8 BGR [H, W, 3] into the network's input.

    Returns:
        The input [1, input_h, input_w, 3], and the matrix [2, 3] from its pixels to those of the image.
    """
    height, width = image.shape[:2]
    inner = facts['input_w'], facts['input_h']
    side = width if facts['task'] == 'ddd' else max(height, width)  # which fills the input's width
    factor = inner[0] / side
    forward = np.array(
        [[factor, 0, inner[0] / 2 - factor * width / 2], [0, factor, inner[1] / 2 - factor * height / 2]]
    )
    pixels = cv2.warpAffine(image, forward, inner, flags=cv2.INTER_LINEAR)[None]
    backward = np.array([[1, 0, width / 2], [0, 1, height / 2]])
    backward[:, :2] /= factor
    backward[:, 2] -= np.array(inner) / 2 / factor
    return pixels.astype(np.float32) if facts['float_input'] else pixels, backward


def to_image(points: np.ndarray, backward: np.ndarray, stride: int) -> np.ndarray:
    """Map points [..., 2] from cells of the output to pixels of the image."""
    return points * stride @ backward[:, :2].T + backward[:, 2]


def detect(session: onnxruntime.InferenceSession, facts: dict, image: np.ndarray, threshold: float) -> list[dict]:
    """Detect in an image uint8 BGR [H, W, 3]; returns what has at least that score, the best first."""
    pixels, backward = to_input(image, facts)
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, (values[0] for values in session.run(names, {'images': pixels})), strict=True))
    stride = facts['down_ratio']
    keep = np.flatnonzero(found['scores'] >= threshold)
    keep = keep[np.argsort(-found['scores'][keep], kind='stable')]
    if facts['task'] == 'exdet':  # one object gives many fours of points; demo.py thins them by soft-NMS instead
        keep = thin(found, keep)
    detections = []
    for i in keep:
        one = {'class': facts['class_names'][found['classes'][i]], 'score': float(found['scores'][i])}
        if 'boxes' in found:
            one['box'] = to_image(found['boxes'][i].reshape(2, 2), backward, stride).ravel().tolist()
        for name in ('keypoints', 'extreme_points'):
            if name in found:
                one[name] = to_image(found[name][i], backward, stride).tolist()
        if 'keypoint_scores' in found:
            one['keypoint_scores'] = found['keypoint_scores'][i].tolist()
        if facts['task'] == 'ddd':
            one['center'] = to_image(found['centers'][i], backward, stride).tolist()
            one |= {'depth': float(found['depths'][i]), 'alpha': float(found['alphas'][i])}
            one['dimensions'] = found['dimensions'][i].tolist()  # height, width, length
        detections.append(one)
    return detections


def thin(found: dict, keep: np.ndarray, most: float = 0.5) -> np.ndarray:
    """Leave out of detections, the best first, those that overlap a better one of their class by more than `most`."""
    kept: list[int] = []
    for i in keep:
        x1, y1, x2, y2 = found['boxes'][i]
        others = found['boxes'][[k for k in kept if found['classes'][k] == found['classes'][i]]].reshape(-1, 4)
        wide = np.clip(np.minimum(x2, others[:, 2]) - np.maximum(x1, others[:, 0]), 0, None)
        high = np.clip(np.minimum(y2, others[:, 3]) - np.maximum(y1, others[:, 1]), 0, None)
        areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1]) + (x2 - x1) * (y2 - y1)
        if not (wide * high > most * (areas - wide * high)).any():
            kept.append(i)
    return np.array(kept, int)


def draw(image: np.ndarray, detections: list[dict], facts: dict) -> np.ndarray:
    """Return the image uint8 BGR [H, W, 3] with boxes, names and points on it."""
    image = image.copy()
    for one in reversed(detections):
        colour = COLOURS[facts['class_names'].index(one['class']) % len(COLOURS)]
        x1, y1, x2, y2 = np.round(one.get('box', [*one.get('center', (0, 0))] * 2)).astype(int).tolist()
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)
        text = f'{one["class"]} {one["score"]:.2f}' + (f' {one["depth"]:.0f} m' if 'depth' in one else '')
        cv2.putText(image, text, (x1, y1 - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
        points = np.round(one.get('keypoints', one.get('extreme_points', []))).astype(int).tolist()
        for a, b in facts.get('skeleton') or []:
            cv2.line(image, points[a], points[b], colour, 2)
        for point in points:
            cv2.circle(image, point, 3, colour, -1)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model')
    parser.add_argument('image')
    parser.add_argument('--output', help='the drawing; by default beside the image, with -found in its name')
    parser.add_argument('--threshold', type=float, default=0.3)
    args = parser.parse_args()
    image = cv2.imread(args.image, cv2.IMREAD_COLOR)
    if image is None:
        sys.exit(f'error: {args.image} is no image that OpenCV reads')
    session, facts = load(args.model)
    detections = detect(session, facts, image, args.threshold)
    for one in detections:
        print(json.dumps(one))
    output = args.output or str(Path(args.image).with_name(f'{Path(args.image).stem}-found.png'))
    if not cv2.imwrite(output, draw(image, detections, facts)):
        sys.exit(f'error: {output} cannot be written')


if __name__ == '__main__':
    main()
