"""Soft-NMS (Bodla et al. 2017) as the published extension has it.

Typed scalars, a pair of boxes at a time, NumPy's exp.
"""

import numpy as np


def soft_nms(float[:, :] boxes, float sigma=0.5, float Nt=0.3, float threshold=0.001, int method=0):
    """Of rows x1, y1, x2, y2, score, in place; returns the rows kept."""
    cdef int count = boxes.shape[0], i = 0, pos, best, column
    cdef float x1, y1, x2, y2, width, height, area, overlap, iou, weight, value
    while i < count:
        best = i
        for pos in range(i + 1, count):
            if boxes[pos, 4] > boxes[best, 4]:
                best = pos
        for column in range(5):
            value = boxes[i, column]
            boxes[i, column] = boxes[best, column]
            boxes[best, column] = value
        x1, y1, x2, y2 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        pos = i + 1
        while pos < count:
            width = min(x2, boxes[pos, 2]) - max(x1, boxes[pos, 0]) + 1
            height = min(y2, boxes[pos, 3]) - max(y1, boxes[pos, 1]) + 1
            if width > 0 and height > 0:
                overlap = width * height
                area = (boxes[pos, 2] - boxes[pos, 0] + 1) * (boxes[pos, 3] - boxes[pos, 1] + 1)
                iou = overlap / ((x2 - x1 + 1) * (y2 - y1 + 1) + area - overlap)
                if method == 1:
                    weight = 1 - iou if iou > Nt else 1
                elif method == 2:
                    weight = np.exp(-(iou * iou) / sigma)
                else:
                    weight = 0 if iou > Nt else 1
                boxes[pos, 4] = weight * boxes[pos, 4]
                if boxes[pos, 4] < threshold:
                    for column in range(5):
                        boxes[pos, column] = boxes[count - 1, column]
                    count -= 1
                    pos -= 1
            pos += 1
        i += 1
    return list(range(count))
