#!/bin/bash
# Build a container image without Docker and without a registry of images: buildah, on a base made by
# debootstrap.
#   scripts/build_image.sh cpu                         on Debian bookworm's Python 3.11
#   PYTHON_TREE=/opt/python3.10 scripts/build_image.sh maxwell    with that tree as /usr/local
# Needs root, buildah and debootstrap (both in Debian).  WORK (default .cache/image) holds the base and
# is reused.  The machine's pip configuration and certificates reach the build as secrets; no layer
# and no log has them.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-cpu}
work=$(realpath -m "${WORK:-.cache/image}")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
tree=${PYTHON_TREE:-}
base=localhost/cipherscore-base:bookworm${tree:+-$(basename "$tree")}
image=localhost/cipherscore:$target
mkdir -p "$work"

step() { printf '== %s\n' "$*"; }

if ! buildah inspect --type image "$base" > /dev/null 2>&1; then
  step "base $base"
  if [ ! -x "$work/root/usr/bin/python3" ]; then
    rm -rf "$work/root"
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv \
      bookworm "$work/root" "$mirror" > "$work/debootstrap.log" 2>&1 || {
      tail -5 "$work/debootstrap.log"
      exit 1
    }
  fi
  # What an image has no use for.
  rm -rf "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/* "$work"/root/usr/share/{doc,man,locale}/*
  container=$(buildah from scratch)
  buildah copy --quiet "$container" "$work/root" /
  if [ -n "$tree" ]; then
    # Everything but its tests, which are a third of it.
    buildah copy --quiet --ignorefile <(printf '%s\n' '**/test' '**/tests' '**/__pycache__' share lib/*.a) \
      --contextdir "$tree" "$container" "$tree" /usr/local
    # As Docker's images of Python: found before Debian's, with its own library.
    buildah run --isolation chroot "$container" -- sh -c 'ldconfig && test "$(command -v python3)" = /usr/local/bin/python3'
  fi
  buildah config --cmd python3 "$container"
  buildah commit --quiet "$container" "$base"
  buildah rm "$container" > /dev/null
fi

secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT
arguments=()
if [ -r "${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}" ]; then
  arguments+=(--secret "id=ca.pem,src=${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}")
fi
if [ -n "${PIP_INDEX_URL:-}${PIP_EXTRA_INDEX_URL:-}" ]; then
  {
    echo '[global]'
    [ -z "${PIP_INDEX_URL:-}" ] || echo "index-url = $PIP_INDEX_URL"
    [ -z "${PIP_EXTRA_INDEX_URL:-}" ] || echo "extra-index-url = $PIP_EXTRA_INDEX_URL"
  } > "$secrets/pip.conf"
  arguments+=(--secret "id=pip.conf,src=$secrets/pip.conf")
fi

step "image $image"
buildah build --format docker --isolation chroot --network host --layers --target "$target" \
  --build-arg BASE="$base" \
  --build-arg VERSION="$(sed -n 's/^__version__ = "\(.*\)"/\1/p' cipherscore/__init__.py)" \
  --build-arg REVISION="$(git rev-parse --short HEAD 2> /dev/null || echo unknown)" \
  "${arguments[@]}" --tag "$image" .

step "size"
buildah images --format '{{.Name}}:{{.Tag}} {{.Size}}' "$base"
buildah images --format '{{.Name}}:{{.Tag}} {{.Size}}' "$image"
