#!/usr/bin/env bash
# The quick start: draw toy data, train from scratch on the CPU, draw what the network finds, score it.
#   experiments/demo.sh [ctdet|multi_pose|exdet|ddd]      (make demo, demo-pose, demo-exdet, demo-3d)
set -euo pipefail
cd "$(dirname "$0")/../src"
task=${1:-ctdet}
data=../data/toy_$task
run=(--exp_id demo --gpus -1)
train=(--arch dlav0_34 --head_conv 64 --pretrained none --batch_size 4 --lr 1e-3 --num_workers 0 --val_intervals 0 --overwrite)
plain=(--input_res 128 --no_color_aug --not_rand_crop --shift 0 --scale 0)
test=(--flip_test)
case $task in
  ctdet)
    toy=(--train 2000 --val 100 --size 128 --colors class)
    train+=("${plain[@]}" --num_epochs 4 --num_iters 220 --lr_step 3 --wh_weight 0.3)
    ;;
  multi_pose)
    toy=(--train 3000 --val 100 --size 128)
    train+=("${plain[@]}" --num_epochs 5 --num_iters 375 --lr_step 4 --wh_weight 0.3)
    ;;
  exdet)
    toy=(--train 2000 --val 100 --size 128 --colors class)
    train+=("${plain[@]}" --shift 0.05 --scale 0.1 --num_epochs 4 --num_iters 240 --lr_step 3)
    ;;
  ddd)
    toy=(--train 1500 --val 100 --size 640x192)
    train+=(--input_h 96 --input_w 320 --num_epochs 5 --num_iters 200 --lr_step 4 --aug_ddd 0)
    train+=(--wh_weight 1.5 --off_weight 5 --dep_weight 2 --dim_weight 3 --rot_weight 8) # their means run over 50 slots
    test=()
    ;;
  *)
    echo "unknown task '$task'" >&2
    exit 2
    ;;
esac

case $task in
  ddd)
    from=(--data_dir "$data")
    pictures=$data/val_pictures
    calib=(--calib "$data/kitti/training/calib")
    ;;
  *)
    from=(--dataset "$data")
    calib=()
    pictures=$data/images/val
    ;;
esac

python tools/make_toy_data.py "$data" --task "$task" "${toy[@]}"
if [ "$task" = ddd ]; then # KITTI keeps all splits in one folder: link the held-out frames
  mkdir -p "$pictures"
  while read -r frame; do
    ln -sf "../kitti/training/image_2/$frame.png" "$pictures/"
  done < "$data/kitti/ImageSets_3dop/val.txt"
fi
python main.py "$task" "${from[@]}" "${run[@]}" "${train[@]}"
model=../exp/$task/demo/model_last.pth
python demo.py "$task" --demo "$pictures" --load_model "$model" "${calib[@]}" "${run[@]}" --no_display
python test.py "$task" "${from[@]}" --load_model "$model" "${run[@]}" "${test[@]}"
