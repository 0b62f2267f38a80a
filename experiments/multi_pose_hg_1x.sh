#!/usr/bin/env bash
# Human pose on COCO, hourglass, 50 epochs
# Starts from the 2D detector models/ctdet_coco_hg.pth.
set -euo pipefail
cd "$(dirname "$0")/../src"

# train
python main.py multi_pose --exp_id hg_1x --arch hourglass --batch_size 24 --lr 2.5e-4 --num_epochs 50 --lr_step 40 --num_workers 16 \
  --load_model ../models/ctdet_coco_hg.pth
# test
python test.py multi_pose --exp_id hg_1x --arch hourglass --keep_res --resume
# flip test
python test.py multi_pose --exp_id hg_1x --arch hourglass --keep_res --resume --flip_test
