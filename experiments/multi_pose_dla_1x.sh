#!/usr/bin/env bash
# Human pose on COCO, dla_34, 140 epochs
# Starts from the 2D detector models/ctdet_coco_dla_2x.pth.
set -euo pipefail
cd "$(dirname "$0")/../src"

# train
python main.py multi_pose --exp_id dla_1x --arch dla_34 --batch_size 128 --lr 5e-4 --num_epochs 140 --lr_step 90,120 --num_workers 16 \
  --load_model ../models/ctdet_coco_dla_2x.pth
# test
python test.py multi_pose --exp_id dla_1x --arch dla_34 --keep_res --resume
# flip test
python test.py multi_pose --exp_id dla_1x --arch dla_34 --keep_res --resume --flip_test
