#!/usr/bin/env bash
# Trains by OpenMPI's mpirun, one process a GPU, or on the CPU where there is none.
# example: HOSTFILE=hosts bash tools/mpi_train.sh 16 configs/classification/dwnet-base_in1k.py --bf16
# Environment: HOSTFILE (`HOST slots=GPUS` in each line; one machine without it), MASTER_ADDR (the first of HOSTFILE),
# MASTER_PORT or PORT (a free one), MPI_ARGS (none).
set -euo pipefail
if [ $# -lt 2 ] || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: $0 NUMBER_OF_PROCESSES CONFIG [options of tools/train.py]" >&2
  exit 2
fi
source "$(dirname "$0")/launch.sh"
hosts=()
export MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
if [ -n "${HOSTFILE:-}" ]; then
  hosts=(--hostfile "$HOSTFILE")
  if [ "$MASTER_ADDR" = 127.0.0.1 ]; then MASTER_ADDR=$(awk '!/^#/ && NF { print $1; exit }' "$HOSTFILE"); fi
fi
free_port='import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'
export MASTER_PORT=${MASTER_PORT:-${PORT:-$("$python" -c "$free_port")}}
# bound to one core, as mpirun does by itself, a process would share it with the workers that read its data;
# MPI_ARGS are several words
exec mpirun -np "$1" "${hosts[@]}" --bind-to none -x MASTER_ADDR -x MASTER_PORT ${MPI_ARGS:-} \
  "$python" "$here/train.py" "${@:2}" --launcher mpi
