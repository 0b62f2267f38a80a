#!/usr/bin/env bash
# Extreme points on COCO, hourglass
# Starts from ExtremeNet's hourglass, made to fit by
#   python src/tools/convert_hourglass_weight.py models/ExtremeNet_500000.pkl models/ExtremeNet_500000.pth
set -euo pipefail
cd "$(dirname "$0")/../src"

# train
python main.py exdet --exp_id coco_hg --arch hourglass --batch_size 24 --lr 2.5e-4 --num_epochs 50 --lr_step 40 --num_workers 16 \
  --load_model ../models/ExtremeNet_500000.pth
# test
python test.py exdet --exp_id coco_hg --arch hourglass --keep_res --resume
# flip test
python test.py exdet --exp_id coco_hg --arch hourglass --keep_res --resume --flip_test
# multi-scale test
python test.py exdet --exp_id coco_hg --arch hourglass --keep_res --resume --flip_test --test_scales 0.5,0.75,1,1.25,1.5
