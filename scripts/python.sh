#!/usr/bin/env bash
# Builds the Python package in the release tree and runs its tests. Arguments go to pytest, e.g. `scripts/python.sh -k hooks`.
# Peers (transformer-lens, interp-engine, lm-eval, inspect-ai, ray) are tested where build/python-venv has them.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup.sh
base=python3
python3 -c 'import torch' 2>/dev/null || base=build/venv/bin/python3
venv=build/python-venv
if [[ ! -x $venv/bin/python ]]; then
  echo "python: will make the virtual environment $venv on top of $base's packages and pip install nanobind, pytest and what notebooks need into it"
  "$base" -m venv "$venv"
  "$base" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth"
  "$venv/bin/pip" install --quiet "nanobind>=2.8" pytest pandas matplotlib tqdm nbclient ipykernel mypy "pyright[nodejs]"
fi
cmake --preset release -DSTEER_BUILD_PYTHON=ON -DPython_EXECUTABLE="$PWD/$venv/bin/python" >build/configure.log || { cat build/configure.log; exit 1; }
cmake --build --preset release --target steer_python
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$PWD/build/release/python
exec "$venv/bin/python" -m pytest -q --no-header -p no:cacheprovider python/tests "$@"
