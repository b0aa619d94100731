#!/usr/bin/env bash
# The everyday suite on other versions than those of constraints.txt: the oldest PyTorch that setup.py declares and the
# newest with its torchvision, NumPy 1.26 and 2, OpenCV 4 and, beyond what setup.py declares, 5. One environment at a
# time, about 8 GB, removed again.
# example: make matrix; or a part: bash tests/matrix.sh tests/test_dwnet.py tests/test_ops.py
#          ONLY=oldest bash tests/matrix.sh
set -uo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONNOUSERSITE=1
unset PYTHONPATH
tests=("$@")
[ $# -gt 0 ] || tests=(-m 'not long')

rows=(
  'oldest torch==2.6.0 torchvision==0.21.0 numpy==1.26.4 opencv-python==4.11.0.86 opencv-python-headless==4.11.0.86'
  'recent torch==2.14.0 torchvision==0.29.0 numpy==2.2.6 opencv-python==4.14.0.94 opencv-python-headless==4.14.0.94'
  'newest torch torchvision numpy'
  'opencv5 torch torchvision numpy'
)
toolboxes=(mmengine==0.10.7 mmcv-lite==2.1.0 mmpretrain==1.2.0 mmdet==3.3.0 mmsegmentation==1.2.2)

# try NAME REQUIREMENT…: one row; its result is the last line of $work/NAME.txt
try() {
  local name=$1 venv=$work/venv log=$work/$1.log code=0
  echo "== $name: ${*:2}" >&2
  "${PYTHON:-python3}" -m venv "$venv" \
    && "$venv/bin/python" -m pip install --quiet -e '.[all]' pytest "${toolboxes[@]}" "${@:2}" 2>&1 | tee "$log" >&2 \
    && { [ "$name" != opencv5 ] || "$venv/bin/python" -m pip install --quiet --no-deps 'opencv-python>=5' \
      'opencv-python-headless>=5' >&2; } \
    && "$venv/bin/python" -W ignore -m pytest -p no:cacheprovider "${tests[@]}" 2>&1 | tee "$log" >&2 || code=1
  {
    "$venv/bin/python" - <<'PY'
from importlib.metadata import version
print('| '.join(f'{version(p):<13}' for p in ('torch', 'torchvision', 'numpy', 'opencv-python')), end='| ')
PY
    tail -1 "$log"
  } >"$work/$name.txt"
  rm -rf "$venv"
  return $code
}

failed=0
for row in "${rows[@]}"; do
  read -ra words <<<"$row"
  [ -z "${ONLY:-}" ] || [ "$ONLY" = "${words[0]}" ] || continue
  try "${words[@]}" || failed=1
done
echo '        | torch        | torchvision  | numpy        | opencv       | result'
for row in "${rows[@]}"; do
  name=${row%% *}
  [ ! -f "$work/$name.txt" ] || printf '%-8s| %s\n' "$name" "$(cat "$work/$name.txt")"
done
exit $failed
