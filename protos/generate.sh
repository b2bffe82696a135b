#!/usr/bin/env bash
# Generates the Python stubs of dragoman.proto: protos/generate.sh PYTHON [OUT]
#
# PYTHON is an interpreter with grpcio-tools (the Makefile pins the version), OUT the folder that takes the tree
# protos/dragoman/v1/ (default: this repository). protoc runs from the repository root so that the stubs import each
# other as protos.dragoman.v1, where buf sees the module root protos/; both hold only while there is one .proto file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:?usage: protos/generate.sh PYTHON [OUT]}
out=${2:-.}
"$python" -m grpc_tools.protoc -I. --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" \
  protos/dragoman/v1/dragoman.proto
