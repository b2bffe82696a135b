# finish.sh: Dragoman itself in /opt/dragoman, and the list of all Python packages; both by themselves in /finished.
set -eu
touch /before
python3 -m pip --python /opt/dragoman/bin/python3 install --quiet --no-index --no-deps --no-cache-dir \
  --disable-pip-version-check /wheel/dragoman-*.whl
mkdir -p /finished/usr/share/sbom
cd /
find opt/dragoman -newercm before ! -type d -print0 | xargs -0 cp --archive --parents --target-directory=/finished
/opt/build/bin/cyclonedx-py environment --output-reproducible --of JSON \
  --output-file /finished/usr/share/sbom/dragoman.cdx.json /opt/dragoman/bin/python3
