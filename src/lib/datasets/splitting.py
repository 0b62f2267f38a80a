"""Dividing images that nothing divides: a part of them validates, the same ones always."""

import hashlib
import math
import re
from collections.abc import Sequence

from ..utils.errors import UserError

ROBOFLOW_COPY = re.compile(r'\.rf\.[0-9A-Za-z]+(?=\.\w+$)')  # what tells augmented copies of one image apart


def choose_at_random(names: Sequence[str], share: float, option: str, seed: int = 0) -> set[str]:
    """Choose the images that validate by a hash of their names: further images change nobody's place but at the margin.

    Roboflow's copies of one image (`NAME.rf.HASH.jpg`) stay together, for a copy of what was learnt proves nothing.

    Args:
        names: file names, distinct, as they lie in the dataset's folder.
        share: part of the images that is chosen; a half goes to training.
        option: the option that gives it, for messages.
        seed: of the hash.

    Returns:
        The chosen names.

    Raises:
        UserError: the share is not between 0 and 1, or there are not two images to divide.
    """
    if not 0 < share < 1:
        raise UserError(f'{option} is over 0 and under 1, found {share}')
    groups = {name: ROBOFLOW_COPY.sub('', name) for name in names}
    distinct = sorted(set(groups.values()), key=lambda group: (_hash(group, seed), group))
    if len(distinct) < 2:
        raise UserError(f'a split needs 2 or more usable images, found {len(distinct)}')
    count = min(max(math.ceil(len(distinct) * share - 0.5), 1), len(distinct) - 1)
    chosen = set(distinct[:count])
    return {name for name, group in groups.items() if group in chosen}


def _hash(text: str, seed: int) -> bytes:
    return hashlib.blake2b(f'{seed} {text}'.encode('utf-8', 'surrogateescape'), digest_size=8).digest()
