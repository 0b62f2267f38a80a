#!/usr/bin/env bash
# Extreme points on COCO, dla_34
# Annotations: python src/tools/gen_coco_extreme_points.py (see its --help).
set -euo pipefail
cd "$(dirname "$0")/../src"

# train
python main.py exdet --exp_id coco_dla --arch dla_34 --batch_size 64 --lr 2.5e-4 --num_workers 8
# test
python test.py exdet --exp_id coco_dla --arch dla_34 --keep_res --resume
# flip test
python test.py exdet --exp_id coco_dla --arch dla_34 --keep_res --resume --flip_test
# multi-scale test
python test.py exdet --exp_id coco_dla --arch dla_34 --keep_res --resume --flip_test --test_scales 0.5,0.75,1,1.25,1.5
