# install.sh ENVIRONMENT LOCK [OPTION...]: a virtual environment without pip, with the packages of LOCK, each held
# against its hash.
set -eu
environment=$1 lock=$2
shift 2
python3.11 -m venv --without-pip "$environment"
python3 -m pip --python "$environment/bin/python3" install --quiet --require-hashes --only-binary :all: --no-deps \
  --no-cache-dir --disable-pip-version-check --requirement "$lock" "$@"
