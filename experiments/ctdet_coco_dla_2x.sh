#!/usr/bin/env bash
# 2D detection on COCO, dla_34, 230 epochs
# The published setting; the learning rate belongs to the batch size.
set -euo pipefail
cd "$(dirname "$0")/../src"

# train
python main.py ctdet --exp_id coco_dla_2x --arch dla_34 --batch_size 128 --lr 5e-4 --num_epochs 230 --lr_step 180,210 --num_workers 16
# test
python test.py ctdet --exp_id coco_dla_2x --arch dla_34 --keep_res --resume
# flip test
python test.py ctdet --exp_id coco_dla_2x --arch dla_34 --keep_res --resume --flip_test
# multi-scale test
python test.py ctdet --exp_id coco_dla_2x --arch dla_34 --keep_res --resume --flip_test --test_scales 0.5,0.75,1,1.25,1.5
