#!/usr/bin/env bash
# Trains with several processes of this machine, one a GPU, or on the CPU where there is none.
# example: bash tools/dist_train.sh configs/classification/dwnet-tiny_in1k.py 8
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT (or PORT) on each.
# MAX_RESTARTS=3: when a process dies, all start again, up to three times, from the newest checkpoint.
set -euo pipefail
if [ $# -lt 2 ] || ! [[ $2 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: $0 CONFIG NUMBER_OF_PROCESSES [options of tools/train.py]" >&2
  exit 2
fi
source "$(dirname "$0")/launch.sh"
launch train.py "$2" "$1" "${@:3}"
