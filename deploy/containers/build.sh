#!/usr/bin/env bash
# build.sh [TARGET...]: builds images of Dragoman; without targets coordinator, edge and cpu.
#
#   REPOSITORY   before the names of images                       [registry.example/dragoman]
#   TAG          of all of them                                   [the version in pyproject.toml]
#   BASE         Debian 12: an image; CUDA_BASE for cuda          [docker.io/library/debian:bookworm-slim]
#   PIP_CONF     pip's configuration, for an index of your own: mounted for the build, in no image
#   PIP_CA       certificates that pip trusts, as one file: mounted as /run/secrets/ca.pem (`cert =` in PIP_CONF)
#   WHEELS       a folder with torch for processors, instead of PyTorch's page
#   BUILDER      podman or buildah                                [podman]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
arguments=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision")
[[ -z ${BASE:-} ]] || arguments+=(--build-arg "BASE=$BASE" --build-arg "CUDA_BASE=${CUDA_BASE:-$BASE}")
[[ -z ${CUDA_BASE:-} ]] || arguments+=(--build-arg "CUDA_BASE=$CUDA_BASE")
[[ -z ${PIP_CONF:-} ]] || arguments+=(--secret "id=pip.conf,src=$PIP_CONF")
[[ -z ${PIP_CA:-} ]] || arguments+=(--secret "id=ca.pem,src=$PIP_CA")
[[ -z ${WHEELS:-} ]] || arguments+=(--volume "$(realpath "$WHEELS"):/wheels:ro" --build-arg TORCH_WHEELS=/wheels)

[[ $# -gt 0 ]] || set -- coordinator edge cpu
for target in "$@"; do
  "${BUILDER:-podman}" build --network host --format oci --layers --ignorefile deploy/containers/containerignore \
    --file deploy/containers/Containerfile --target "$target" \
    --tag "${REPOSITORY:-registry.example/dragoman}/$target:${TAG:-$version}" "${arguments[@]}" .
done
