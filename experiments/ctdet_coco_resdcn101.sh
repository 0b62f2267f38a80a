#!/usr/bin/env bash
# 2D detection on COCO, resdcn_101, 140 epochs
# The published setting; the learning rate belongs to the batch size.
set -euo pipefail
cd "$(dirname "$0")/../src"

# train
python main.py ctdet --exp_id coco_resdcn101 --arch resdcn_101 --batch_size 96 --lr 3.75e-4 --num_epochs 140 --lr_step 90,120 --num_workers 16
# test
python test.py ctdet --exp_id coco_resdcn101 --arch resdcn_101 --keep_res --resume
# flip test
python test.py ctdet --exp_id coco_resdcn101 --arch resdcn_101 --keep_res --resume --flip_test
# multi-scale test
python test.py ctdet --exp_id coco_resdcn101 --arch resdcn_101 --keep_res --resume --flip_test --test_scales 0.5,0.75,1,1.25,1.5
