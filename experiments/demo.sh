#!/usr/bin/env bash
# The quick start: draw toy data, train from scratch on the CPU, draw what the network finds, score it.
#   experiments/demo.sh [ctdet|multi_pose|exdet|ddd]      (make demo, demo-pose, demo-exdet, demo-3d)
set -euo pipefail
cd "$(dirname "$0")/../src"
task=${1:-ctdet}
data=../data/toy_$task
run=(--exp_id demo --gpus -1)
train=(--arch dlav0_34 --head_conv 64 --pretrained none --input_res 128 --batch_size 4 --lr 1e-3 --num_workers 0
  --val_intervals 0 --no_color_aug --not_rand_crop --shift 0 --scale 0)
case $task in
  ctdet)
    toy=(--train 2000 --val 100 --size 128 --colors class)
    train+=(--num_epochs 4 --num_iters 260 --lr_step 3 --wh_weight 0.3)
    ;;
  *)
    echo "unknown task '$task'" >&2
    exit 2
    ;;
esac

python tools/make_toy_data.py "$data" --task "$task" "${toy[@]}"
python main.py "$task" --dataset "$data" "${run[@]}" "${train[@]}"
model=../exp/$task/demo/model_last.pth
python demo.py "$task" --demo "$data/images/val" --load_model "$model" "${run[@]}" --no_display
python test.py "$task" --dataset "$data" --load_model "$model" "${run[@]}"
