#!/usr/bin/env bash
# Tests by Slurm, one process a GPU; the environment is that of slurm_train.sh.
# example: bash tools/slurm_test.sh PARTITION JOB_NAME configs/detection/cascade-mask-rcnn_dwnet-tiny_fpn_3x_coco.py FILE.pth
set -euo pipefail
if [ $# -lt 4 ]; then
  echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]" >&2
  exit 2
fi
source "$(dirname "$0")/launch.sh"
launch_by_slurm test.py "$@"
