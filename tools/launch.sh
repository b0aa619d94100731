# Shared by dist_train.sh and dist_test.sh: launch TOOL PROCESSES ARGUMENTS…
launch() {
  local tool=$1 processes=$2 here python rendezvous
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  python=$here/../.venv/bin/python # the clone's own, if `make setup` made one
  [ -x "$python" ] || python=python
  rendezvous=(--standalone) # one machine: a free port is found
  if [ "${NNODES:-1}" -gt 1 ]; then
    rendezvous=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?rank of this machine, from 0}"
      --master-addr "${MASTER_ADDR:?address of the first machine}" --master-port "${MASTER_PORT:-29500}")
  fi
  exec "$python" -m torch.distributed.run "${rendezvous[@]}" --nproc-per-node "$processes" \
    "$here/$tool" "${@:3}" --launcher pytorch
}
