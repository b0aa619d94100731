#!/usr/bin/env bash
# Tests with several processes of this machine, one a GPU, or on the CPU where there is none.
# example: bash tools/dist_test.sh configs/detection/cascade-mask-rcnn_dwnet-tiny_fpn_3x_coco.py FILE.pth 8
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT (or PORT) on each.
set -euo pipefail
if [ $# -lt 3 ] || ! [[ $3 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: $0 CONFIG CHECKPOINT NUMBER_OF_PROCESSES [options of tools/test.py]" >&2
  exit 2
fi
source "$(dirname "$0")/launch.sh"
launch test.py "$3" "$1" "$2" "${@:4}"
