#!/usr/bin/env bash
# 3D boxes on KITTI, the subcnn split
# Annotations: python src/tools/convert_kitti_to_coco.py (see its --help).
set -euo pipefail
cd "$(dirname "$0")/../src"

# train
python main.py ddd --exp_id subcnn --kitti_split subcnn --batch_size 16 --num_epochs 70 --lr_step 45,60 --num_workers 8
# test
python test.py ddd --exp_id subcnn --kitti_split subcnn --resume
