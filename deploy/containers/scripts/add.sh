# add.sh LOCK [OPTION...]: what LOCK has beyond the packages of /opt/dragoman, there and, by itself, in /added.
set -eu
lock=$1
shift
touch /before
python3 -m pip --python /opt/dragoman/bin/python3 install --quiet --require-hashes --only-binary :all: --no-deps \
  --no-cache-dir --disable-pip-version-check --requirement "$lock" "$@"
rm -rf /added
mkdir /added
cd /
find opt/dragoman -newercm before ! -type d -print0 | xargs -0 -r cp --archive --parents --target-directory=/added
