# finish.sh NAME: Dragoman itself in /opt/dragoman where it is not there yet, and the list of all Python packages.
set -eu
[ -x /opt/dragoman/bin/dragoman ] || python3 -m pip --python /opt/dragoman/bin/python3 install --quiet --no-index \
  --no-deps --no-cache-dir --disable-pip-version-check /wheel/dragoman-*.whl
mkdir -p /sbom
/opt/build/bin/cyclonedx-py environment --output-reproducible --of JSON --output-file /sbom/dragoman.cdx.json \
  /opt/dragoman/bin/python3
