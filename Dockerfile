# syntax=docker/dockerfile:1
# Headgate's image: Debian slim, one virtual environment, no compiler, no pip, a numeric user, and a list of what is in it.
#
#   docker build -t headgate .
#   docker run -p 127.0.0.1:8000:8000 -v headgate:/data headgate
#
# Nothing but /data is written, so the root may be mounted read-only.
ARG PYTHON=3.13-slim-bookworm

FROM python:${PYTHON} AS build
WORKDIR /src
# What is built with is pinned by digest as what runs is.
COPY deploy/image/build.lock ./
RUN python -m venv /build && /build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r build.lock
COPY requirements.lock ./
RUN python -m venv --without-pip /opt/headgate \
    && /build/bin/pip --python /opt/headgate/bin/python install --no-cache-dir --disable-pip-version-check \
       --only-binary :all: --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
RUN /build/bin/pip wheel --disable-pip-version-check --no-build-isolation --no-deps --no-index --wheel-dir /dist . \
    && /build/bin/pip --python /opt/headgate/bin/python install --disable-pip-version-check --no-deps --no-index /dist/*.whl
# The bill of materials is read from what was installed, not from what was asked for.
RUN /build/bin/cyclonedx-py environment --pyproject pyproject.toml --output-format JSON --output-reproducible \
       --output-file /opt/headgate/sbom.cdx.json /opt/headgate/bin/python

FROM python:${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Headgate" \
      org.opencontainers.image.description="An AI gateway for multi-tenant products" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/headgate/headgate" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore pip \
    && install -d -m 0700 -o 10001 -g 10001 /data
COPY --from=build /opt/headgate /opt/headgate
ENV PATH=/opt/headgate/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    HEADGATE_DATA=/data
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8000
# The first signal lets calls under way finish: give it more than the 30 s that they get, `docker stop --time 40`.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["headgate"]
CMD ["serve", "--host", "0.0.0.0"]
