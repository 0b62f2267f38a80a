#!/usr/bin/env bash
# 2D detection on Pascal VOC, resdcn_101, 512 x 512
# The published setting; the learning rate belongs to the batch size.
set -euo pipefail
cd "$(dirname "$0")/../src"

# train
python main.py ctdet --dataset pascal --exp_id pascal_resdcn101_512 --arch resdcn_101 --input_res 512 --batch_size 32 --lr 1.25e-4 \
  --num_epochs 70 --lr_step 45,60 --num_workers 10
# test
python test.py ctdet --exp_id pascal_resdcn101_512 --dataset pascal --arch resdcn_101 --input_res 512 --resume
# flip test
python test.py ctdet --exp_id pascal_resdcn101_512 --dataset pascal --arch resdcn_101 --input_res 512 --resume --flip_test
