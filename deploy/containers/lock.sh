#!/usr/bin/env bash
# Writes locks/*.txt anew: the packages of each image with the hashes of their files, in the versions of constraints.txt.
# Needs uv. WHEELS: a folder or page with torch for processors, if not PyTorch's own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
wheels=${WHEELS:-https://download.pytorch.org/whl/cpu/torch/}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
sed 's/^torch==[0-9.]*$/&+cpu/' constraints.txt >"$scratch/cpu.txt"

lock() { # NAME CONSTRAINTS INPUT...
  local name=$1 constraints=$2
  shift 2
  uv pip compile --quiet --generate-hashes --no-annotate --no-header --only-binary :all: --python-version 3.11 \
    --python-platform x86_64-manylinux_2_36 --constraint "$constraints" --output-file "$scratch/$name.txt" "$@"
  {
    echo "# Written by deploy/containers/lock.sh"
    cat "$scratch/$name.txt"
  } >"deploy/containers/locks/$name.txt"
}

lock build constraints.txt deploy/containers/locks/build.in
lock coordinator constraints.txt deploy/containers/locks/coordinator.in
lock edge "$scratch/cpu.txt" --find-links "$wheels" pyproject.toml
lock cpu "$scratch/cpu.txt" --find-links "$wheels" pyproject.toml --extra guided
lock ray "$scratch/cpu.txt" --find-links "$wheels" pyproject.toml --extra guided --extra ray
lock cuda constraints.txt pyproject.toml --extra guided --extra gpu --extra ray
