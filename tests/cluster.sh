#!/usr/bin/env bash
# Runs tools/mpi_train.sh and tools/slurm_train.sh for real, on this machine: Debian's OpenMPI, and its Slurm as a
# cluster of one machine. Two processes train one epoch of the digits by each, and by torchrun: all end with the same
# weights.
#
# example: make cluster      as root, on Debian or Ubuntu
#
# It installs openmpi-bin, slurmctld, slurmd, slurm-client and munge where they are missing, and starts the daemons,
# with a configuration of their own in a temporary folder; at the end it stops those that it has started.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" -ne 0 ]; then
  echo 'error: the daemons of Slurm are installed and started by root' >&2
  exit 2
fi
for program in mpirun slurmctld slurmd srun munged; do
  if ! command -v "$program" > /dev/null; then
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      openmpi-bin slurmctld slurmd slurm-client munge
    break
  fi
done

folder=$(mktemp -d)
daemons=()
stop() {
  for daemon in "${daemons[@]}"; do kill "$daemon" 2> /dev/null || true; done
  wait
  rm -rf "$folder"
}
trap stop EXIT

python=.venv/bin/python
export PYTHONPATH=$PWD OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=
"$python" -W ignore - "$folder/digits" << 'PYTHON'
import sys
from dwnet.demo import digits
small = digits.DigitsConfig(renderings=1, train_scenes=24, test_scenes=9)
digits.prepare(sys.argv[1], small, show_progress=False)
PYTHON
config=configs/classification/dwnet-nano_digits.py
options=(--cfg-options train_cfg.max_epochs=1 train_cfg.val_interval=1)
for part in train val test; do options+=("${part}_dataloader.dataset.data_root=$folder/digits"); done

# check NAME: one epoch of half of 1347 images a process, in batches of 64, which ends where that by torchrun does
check() {
  "$python" -W ignore - "$folder" "$1" << 'PYTHON'
import pathlib, sys
import dwnet, torch
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
state, expected = (torch.load(folder / n / 'epoch_1.pth') for n in (name, 'torchrun'))
assert state['meta']['iter'] == 10, state['meta']['iter']
furthest = max((x - expected['state_dict'][key]).abs().max().item() for key, x in state['state_dict'].items())
assert furthest < 1e-6, furthest
print(f'{name}: 10 steps of 2 processes; the weights are those of torchrun, to {furthest:.0e}')
PYTHON
}

# by_log NAME COMMAND…: its output in a file, shown only if it fails
by_log() {
  "${@:2}" > "$folder/$1.log" 2>&1 || { tail -n 40 "$folder/$1.log"; echo "error: $1 has failed" >&2; exit 1; }
}

by_log torchrun bash tools/dist_train.sh "$config" 2 --work-dir "$folder/torchrun" "${options[@]}"

echo "$(mpirun --version | head -n 1)"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export MPI_ARGS='--oversubscribe' # a machine of one core has one slot
by_log mpi bash tools/mpi_train.sh 2 "$config" --work-dir "$folder/mpi" "${options[@]}"
check mpi

slurmd -V
host=$(hostname -s)
if ! munge -n > /dev/null 2>&1; then
  mkdir -p /run/munge && chown munge: /run/munge
  runuser -u munge -- munged --foreground > "$folder/munged.log" 2>&1 &
  daemons+=($!)
fi
export SLURM_CONF=$folder/slurm.conf
cat > "$SLURM_CONF" << CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
SlurmctldPort=26817
SlurmdPort=26818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc)
PartitionName=cpu Nodes=$host Default=YES State=UP OverSubscribe=FORCE:4
CONF
mkdir "$folder/state" "$folder/spool"
for daemon in slurmctld slurmd; do
  "$daemon" -D > "$folder/$daemon.log" 2>&1 &
  daemons+=($!)
done
for _ in $(seq 60); do
  sinfo --noheader -o %t 2> /dev/null | grep -q idle && break
  sleep 1
done
sinfo --noheader | grep idle || { tail "$folder"/*.log; echo 'error: Slurm does not start' >&2; exit 1; }
export GPUS=0 NTASKS=2 CPUS_PER_TASK=1 SRUN_ARGS=--overcommit
by_log slurm bash tools/slurm_train.sh cpu digits "$config" --work-dir "$folder/slurm" "${options[@]}"
check slurm
by_log slurm-test bash tools/slurm_test.sh cpu digits "$config" "$folder/slurm/epoch_1.pth" --work-dir "$folder/scores" \
  "${options[@]}"
grep -A 4 metric "$folder/slurm-test.log"
