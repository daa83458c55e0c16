# One image for every subcommand: docker run quotagate gateway | control | migrate | …

FROM python:3.11-slim AS build
WORKDIR /build
# Compiles the gateway's hot modules. The image itself needs no compiler. Debian keeps one version of each, so none is named.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
# Without pip: nobody installs anything in a container that runs.
RUN python -m venv --without-pip /opt/quotagate
ENV PIP_PYTHON=/opt/quotagate PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The dependencies come first: their layer outlives changes of the code.
COPY requirements-runtime.lock ./
RUN pip install --require-hashes --requirement requirements-runtime.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY compiled ./compiled
COPY quota ./quota
COPY common ./common
COPY identity ./identity
COPY lua ./lua
COPY gateway ./gateway
COPY control ./control
COPY config ./config
COPY devstack ./devstack
COPY quotagate ./quotagate
RUN pip install --no-deps .

FROM python:3.11-slim
# A volume at /var/lib/quotagate takes its owner from here. Nothing else is written: the root file system can be read-only.
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin quotagate \
    && install --directory --mode=0750 --owner=10001 --group=10001 /var/lib/quotagate
COPY --from=build /opt/quotagate /opt/quotagate
ENV PATH=/opt/quotagate/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8080 8081 9464
STOPSIGNAL SIGTERM
# Of whichever role runs, on its own port. Not /-/ready: a store that is away is no reason to replace a container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["quotagate", "health"]
ENTRYPOINT ["quotagate"]
CMD ["--help"]
