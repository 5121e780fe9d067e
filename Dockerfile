# The host as a container image.  From the root of the repository:
#   docker build -t cipherscore:cpu .                     any x86-64 machine
#   docker build -t cipherscore:cuda --target cuda .      GPUs of compute capability 7.5 and up
#   docker build -t cipherscore:maxwell --target maxwell --build-arg BASE=docker.io/library/python:3.10-slim .
#                                                         older GPUs: GeForce 940MX and the like
# podman and buildah take the same arguments; docs/deploy.md tells how to run them.  BASE is any image with
# python3 (3.10 to 3.13) and its venv module; pin it by digest.  Behind a package mirror add
# --secret id=pip.conf,src=... (and id=ca.pem): it is read while packages are installed and kept nowhere.
ARG BASE=docker.io/library/python:3.12-slim

FROM ${BASE} AS build
COPY deploy/image/install.sh scripts/image_sbom.py /build/

FROM build AS cpu-packages
COPY requirements/serve.txt /build/lock.txt
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    sh /build/install.sh cpu

FROM build AS cuda-packages
COPY requirements/serve-cuda.txt /build/lock.txt
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    sh /build/install.sh cuda

FROM build AS maxwell-packages
COPY requirements/serve-maxwell.txt /build/lock.txt
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    sh /build/install.sh maxwell

# What all targets share, but for the packages.
FROM ${BASE} AS host
ARG BASE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="CipherScore" \
      org.opencontainers.image.description="Credit scoring on encrypted categories: HTTP and gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}" \
      org.cipherscore.sbom="/usr/share/cipherscore/sbom.cdx.json" \
      org.cipherscore.sbom.format="application/vnd.cyclonedx+json; version=1.6"
# HOME: the user has no entry in /etc/passwd.  Nothing is written but under /tmp.
ENV PATH="/opt/cipherscore/bin:${PATH}" \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    REGISTRY=/var/lib/cipherscore \
    BENTOML_HOME=/tmp/bentoml \
    BENTOML_HOST=0.0.0.0 \
    BENTOML_PORT=3000 \
    BENTOML_DO_NOT_TRACK=True
WORKDIR /app
COPY LICENSE /usr/share/cipherscore/
COPY cipherscore cipherscore
COPY registry registry
COPY serving serving
COPY deploy/image/start.sh /usr/share/cipherscore/
# The registry is mounted here, or copied in by deploy/image/Dockerfile.models.
RUN mkdir -p /var/lib/cipherscore && python3 -m compileall -q /app
USER 10001:10001
EXPOSE 3000 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 \
  CMD ["/opt/cipherscore/bin/python", "-m", "serving.healthcheck"]
# Workers that die are replaced; BENTOML_CONTAINERIZED, which prevents that, stays unset.
ENTRYPOINT ["/bin/sh", "/usr/share/cipherscore/start.sh"]

FROM host AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=cuda-packages /usr/share/cipherscore /usr/share/cipherscore
COPY --from=cuda-packages /opt/cipherscore /opt/cipherscore

FROM host AS maxwell
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=maxwell-packages /usr/share/cipherscore /usr/share/cipherscore
COPY --from=maxwell-packages /opt/cipherscore /opt/cipherscore

FROM host AS cpu
COPY --from=cpu-packages /usr/share/cipherscore /usr/share/cipherscore
COPY --from=cpu-packages /opt/cipherscore /opt/cipherscore
