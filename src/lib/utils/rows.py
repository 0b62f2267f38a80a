"""Columns of detections as arrays: of decoded rows, on the output map, and of result rows, in the image."""


class Box:
    """Rows [n, 5 or more] of a box and its score: results of ctdet, exdet and multi_pose, and what decoders give.

    Joints or extreme points follow; decoded rows end with the class.
    """

    BOX = slice(0, 4)  # x1 y1 x2 y2
    SCORE = 4
    POINTS = slice(5, None)  # x, y of each joint or extreme point, in results
    CLASS = -1  # 0-based, in decoded rows


class Extremes(Box):
    """Decoded rows [n, 14] of exdet; results are the same without the class."""

    POINTS = slice(5, 13)  # x, y of the top, left, bottom and right point
    COLUMNS = 14
    XS = (0, 2, 5, 7, 9, 11)  # every x
    MIRROR = (2, 1, 0, 3, 4, 5, 6, 11, 12, 9, 10, 7, 8, 13)  # the columns once left and right have changed places


class DecodedBox3d:
    """Decoded rows [n, 18] of ddd, or [n, 16] without a size of the 2D box."""

    CENTER = slice(0, 2)  # x, y on the output map
    SCORE = 2
    ROTATION = slice(3, 11)  # two bins of logit 0, logit 1, sin, cos
    DEPTH = 11  # metres
    DIM = slice(12, 15)  # height, width, length in metres
    SIZE = slice(15, 17)  # width, height of the 2D box, in cells
    CLASS = -1  # 0-based
    COLUMNS, COLUMNS_WITHOUT_SIZE = 18, 16


class Box3d:
    """Result rows [n, 13] of ddd."""

    ALPHA = 0  # radians, relative to the ray of sight
    BOX = slice(1, 5)  # x1 y1 x2 y2 in pixels
    DIM = slice(5, 8)  # height, width, length in metres
    LOCATION = slice(8, 11)  # X, Y, Z of the middle of its bottom, in metres
    ROTATION_Y = 11  # radians
    SCORE = 12
