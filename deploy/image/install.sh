#!/bin/sh
# In the build stage of an image: /opt/cipherscore, an environment of exactly the locked packages
# without pip, and its bill of materials.   install.sh cpu|cuda|maxwell
set -eu
target=$1
environment=/opt/cipherscore
if [ "$target" = maxwell ]; then
  python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' || {
    echo "error: target maxwell needs --build-arg BASE=an image with Python 3.10" >&2
    exit 1
  }
fi
python3 -m venv /build/tools
python3 -m venv --without-pip "$environment"
# Both secrets may be absent; pip passes over files that are.
[ ! -f /run/secrets/ca.pem ] || export PIP_CERT=/run/secrets/ca.pem
PIP_CONFIG_FILE=/run/secrets/pip.conf /build/tools/bin/pip --python "$environment/bin/python" \
  --disable-pip-version-check --no-cache-dir install \
  --require-hashes --no-deps --only-binary :all: --report /build/report.json -r /build/lock.txt
capi=$(echo "$environment"/lib/python3*/site-packages/onnxruntime/capi)
# What the target cannot use is most of ONNX Runtime's size.
rm -f "$capi/libonnxruntime_providers_tensorrt.so"
[ "$target" != cpu ] || rm -f "$capi/libonnxruntime_providers_cuda.so"
mkdir -p /usr/share/cipherscore
python3 /build/image_sbom.py "$target" < /build/report.json > /usr/share/cipherscore/sbom.cdx.json
