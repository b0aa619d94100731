#!/usr/bin/env bash
# Trains by Slurm, one process a GPU.
# example: GPUS=16 bash tools/slurm_train.sh PARTITION JOB_NAME configs/classification/dwnet-base_in1k.py --bf16
# Environment: GPUS (8), GPUS_PER_NODE (8, or GPUS if fewer), CPUS_PER_TASK (5), SRUN_ARGS (none).
# Without GPUs: GPUS=0, NTASKS (1), NTASKS_PER_NODE (as Slurm likes).
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "usage: $0 PARTITION JOB_NAME CONFIG [options of tools/train.py]" >&2
  exit 2
fi
source "$(dirname "$0")/launch.sh"
launch_by_slurm train.py "$@"
