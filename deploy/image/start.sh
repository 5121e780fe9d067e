#!/bin/sh
# First process of a container: the server, on the registry in $REGISTRY.  Arguments go to `bentoml serve`.
set -eu
# BentoML makes folders in its home; a registry may be mounted read-only and lack them.
mkdir -p "$BENTOML_HOME/bentos" "$BENTOML_HOME/envs" "$BENTOML_HOME/tmp"
for part in models cipherscore; do
  [ -e "$BENTOML_HOME/$part" ] || ln -s "$REGISTRY/$part" "$BENTOML_HOME/$part"
done
exec /opt/cipherscore/bin/python -m bentoml serve serving.service:CipherScore "$@"
