# syntax=docker/dockerfile:1
# The worker, compiled and locked: docker build -t session-aggregator .
# Nothing here is of one processor; x86-64 and arm64 are built by: docker buildx build --platform linux/amd64,linux/arm64 .
# Behind a mirror: --secret id=pip_conf,src=pip.conf and --secret id=ca_certificates,src=ca.pem are used where given.

ARG DEBIAN=debian:trixie-slim

# --- what is needed to build; nothing of it is in the image ---------------------------------------------------------
FROM ${DEBIAN} AS build
ARG UV_VERSION=0.13.9
ENV UV_PYTHON_DOWNLOADS=never \
    UV_LINK_MODE=copy \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# Debian's mirrors keep only the newest of each package: a pinned version would stop building at the next security fix.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev python3 python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca_certificates,target=/run/secrets/ca.pem \
    if [ -s /run/secrets/ca.pem ]; then export PIP_CERT=/run/secrets/ca.pem; fi \
 && python3 -m venv /uv \
 && /uv/bin/pip install --no-cache-dir "uv==${UV_VERSION}"

WORKDIR /src
# The packages come first: they change seldom, and then this layer is taken from the cache.
COPY pyproject.toml uv.lock ./
RUN --mount=type=secret,id=uv_toml,target=/etc/uv/uv.toml \
    --mount=type=secret,id=ca_certificates,target=/run/secrets/ca.pem \
    if [ -s /run/secrets/ca.pem ]; then export SSL_CERT_FILE=/run/secrets/ca.pem; fi \
 && /uv/bin/uv export --quiet --frozen --no-dev --extra web --extra tracing --no-emit-project --output-file /locked.txt \
 && /uv/bin/uv export --quiet --frozen --only-group build --output-file /locked-build.txt \
 && /uv/bin/uv venv --python /usr/bin/python3 /opt/session-aggregator \
 && /uv/bin/uv pip install --no-cache --no-build --require-hashes --python /opt/session-aggregator \
      --requirement /locked.txt
COPY setup.py README.md LICENSE ./
COPY aggregator aggregator
RUN --mount=type=secret,id=uv_toml,target=/etc/uv/uv.toml \
    --mount=type=secret,id=ca_certificates,target=/run/secrets/ca.pem \
    if [ -s /run/secrets/ca.pem ]; then export SSL_CERT_FILE=/run/secrets/ca.pem; fi \
 && SESSION_AGGREGATOR_COMPILE=require SOURCE_DATE_EPOCH=0 \
    /uv/bin/uv build --quiet --no-cache --wheel --python /usr/bin/python3 --out-dir /dist \
      --build-constraints /locked-build.txt --require-hashes \
 && /uv/bin/uv pip install --no-cache --no-deps --python /opt/session-aggregator /dist/*.whl \
 && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/session-aggregator

# --- what runs -------------------------------------------------------------------------------------------------------
FROM ${DEBIAN}
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log
COPY --from=build /opt/session-aggregator /opt/session-aggregator

# The root file system can be read-only: nothing is written, bytecode is there.
ENV PATH=/opt/session-aggregator/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, so that Kubernetes can see that it is not root without looking into /etc/passwd.
USER 65532:65532
WORKDIR /
EXPOSE 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["session-aggregator", "healthcheck"]
ENTRYPOINT ["session-aggregator"]
CMD ["run"]

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="session-aggregator" \
      org.opencontainers.image.description="Turns the stream of OpenTelemetry spans of LLM applications into live sessions" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
