# Shared by the launchers. All that is set here comes from the environment, by the usual names.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# That of the activated environment, else of the clone's own, which `make setup` made, else the one on PATH.
python=${VIRTUAL_ENV:-$here/../.venv}/bin/python
[ -x "$python" ] || python=python
# After a restart, checkpoints older than this are of another training.
export DWNET_LAUNCHED_AT; DWNET_LAUNCHED_AT=$(date +%s)

# launch TOOL PROCESSES ARGUMENTS…: by torchrun
launch() {
  # One machine: a free port is found. By itself torchrun waits for ever where the machine's own name has no address.
  local rendezvous=(--standalone --local-addr localhost)
  if [ "${NNODES:-1}" -gt 1 ]; then
    local port=${MASTER_PORT:-${PORT:-29500}}
    rendezvous=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?rank of this machine, from 0}"
      --master-addr "${MASTER_ADDR:?address of the first machine}" --master-port "$port")
    echo "machine $NODE_RANK of $NNODES: waiting for the others at $MASTER_ADDR:$port" >&2
  fi
  exec "$python" -m torch.distributed.run "${rendezvous[@]}" --nproc-per-node "$2" \
    --max-restarts "${MAX_RESTARTS:-0}" "$here/$1" "${@:3}" --launcher pytorch
}

# launch_by_slurm TOOL PARTITION JOB_NAME ARGUMENTS…
launch_by_slurm() {
  local gpus=${GPUS:-8} arguments
  if [ "$gpus" -gt 0 ]; then
    local a_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    arguments=(--ntasks "$gpus" --ntasks-per-node "$a_node" --gres "gpu:$a_node")
  else
    arguments=(--ntasks "${NTASKS:-1}")
    if [ -n "${NTASKS_PER_NODE:-}" ]; then arguments+=(--ntasks-per-node "$NTASKS_PER_NODE"); fi
  fi
  # SRUN_ARGS are several words
  exec srun --partition "$2" --job-name "$3" "${arguments[@]}" --cpus-per-task "${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} "$python" -u "$here/$1" "${@:4}" --launcher slurm
}
