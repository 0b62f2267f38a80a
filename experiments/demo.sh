#!/usr/bin/env bash
# The quick start (make demo): draw toy data, train a detector from scratch, draw what it finds, score it.
set -euo pipefail
cd "$(dirname "$0")/../src"
data=../data/toy exp_id=demo

python tools/make_toy_data.py "$data" --task ctdet --train 1200 --val 100 --size 128 --colors class
python main.py ctdet --dataset "$data" --exp_id "$exp_id" --arch dlav0_34 --head_conv 64 --pretrained none --gpus -1 \
  --input_res 128 --batch_size 4 --lr 1e-3 --num_epochs 4 --lr_step 3 --val_intervals 0 --num_workers 1 \
  --not_rand_crop --shift 0 --scale 0 --no_color_aug
model=../exp/ctdet/$exp_id/model_last.pth
python demo.py ctdet --demo "$data/images/val" --load_model "$model" --output "../exp/ctdet/$exp_id/demo" --gpus -1 --no_display
python test.py ctdet --dataset "$data" --exp_id "$exp_id" --load_model "$model" --gpus -1
