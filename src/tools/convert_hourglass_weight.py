"""Turn an ExtremeNet checkpoint (or the backbone of a CornerNet one) into one that `--arch hourglass` loads.

The networks are the same, only heads are named differently: ExtremeNet's t_heats is exdet's hm_t, and so on.
"""

import argparse

import torch

from centernet.models.checkpoints import load_checkpoint, write_checkpoint
from centernet.models.networks.large_hourglass import HourglassNet
from centernet.utils.cli import OneLineParser, run_cli
from centernet.utils.errors import UserError

HEADS = {
    't_heats': 'hm_t',
    'l_heats': 'hm_l',
    'b_heats': 'hm_b',
    'r_heats': 'hm_r',
    'ct_heats': 'hm_c',
    't_regrs': 'reg_t',
    'l_regrs': 'reg_l',
    'b_regrs': 'reg_b',
    'r_regrs': 'reg_r',
}
BACKBONE = tuple(prefix.removesuffix('.') for prefix in HourglassNet.backbone_prefixes)
NEW_NAMES = {name: name for name in BACKBONE} | HEADS


def convert(weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Give weights (such as [out, in, k, k]) our names; return them and the top-level modules without a counterpart.

    Raises:
        UserError: no hourglass backbone among them.
    """
    converted: dict[str, torch.Tensor] = {}
    unknown: dict[str, None] = {}
    for name, value in weights.items():
        module, _, rest = name.partition('.')
        if module in NEW_NAMES:
            converted[f'{NEW_NAMES[module]}.{rest}'] = value
        else:
            unknown[module] = None
    missing = [module for module in BACKBONE if not any(name.startswith(f'{module}.') for name in converted)]
    if missing:
        raise UserError(f'not an ExtremeNet or CornerNet hourglass: it has no parameters of {", ".join(missing)}')
    return converted, list(unknown)


def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('checkpoint', help='ExtremeNet checkpoint (ExtremeNet_500000.pkl)')
    parser.add_argument('output', help='checkpoint to write (ExtremeNet_500000.pth)')
    args = parser.parse_args()
    converted, unknown = convert(load_checkpoint(args.checkpoint)['state_dict'])
    if unknown:
        print(f'left out, without a counterpart: {", ".join(unknown)}')
    write_checkpoint(args.output, {'epoch': 0, 'state_dict': converted})
    heads = [head for head in HEADS.values() if any(name.startswith(f'{head}.') for name in converted)]
    print(f'{args.output}: {len(converted)} tensors, heads: {", ".join(heads) or "none, the backbone only"}')


if __name__ == '__main__':
    run_cli(main)
