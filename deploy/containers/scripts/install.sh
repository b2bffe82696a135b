# install.sh LOCK [OPTION...]: the packages of LOCK, each held against its hash, in a virtual environment without pip.
# ENVIRONMENT names it: /opt/dragoman.
set -eu
environment=${ENVIRONMENT:-/opt/dragoman} lock=$1
shift
python3.11 -m venv --without-pip "$environment"
python3 -m pip --python "$environment/bin/python3" install --quiet --require-hashes --only-binary :all: --no-deps \
  --no-cache-dir --disable-pip-version-check --requirement "$lock" "$@"
# A sixth of torch: for those who build extensions, and tests.
rm -rf "$environment"/lib/python3.11/site-packages/torch/include "$environment"/lib/python3.11/site-packages/torch/test \
  "$environment"/lib/python3.11/site-packages/torch/bin/*test*
