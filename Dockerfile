# The gateway as an image: an interpreter, one virtual environment, a user without rights.
# It needs no writable file system and no capability; docker-compose.yml runs it without either.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Without pip: it is needed here, not where the gateway runs.
RUN python -m venv --without-pip /opt/mq-gateway
# The dependencies are a layer of their own: an edit of the application does not fetch them again.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > requirements.txt \
 && python -m pip --python /opt/mq-gateway/bin/python install \
      --only-binary :all: --constraint constraints.txt --requirement requirements.txt
COPY README.md LICENSE ./
COPY app app
RUN python -m pip --python /opt/mq-gateway/bin/python install --no-deps .


FROM python:${PYTHON}-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mq-gateway" \
      org.opencontainers.image.description="HTTP-to-STOMP gateway: publish with POST, subscribe with server-sent events" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# A number, so that an orchestrator can tell that it is not root; fixed, so that files can be given to it.
RUN groupadd --gid 10001 mq-gateway \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin mq-gateway \
 && python -m pip uninstall --yes --quiet --root-user-action=ignore pip
COPY --from=build /opt/mq-gateway /opt/mq-gateway
ENV PATH=/opt/mq-gateway/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1
USER 10001:10001
WORKDIR /
EXPOSE 8080
# The drain of the gateway begins with it.
STOPSIGNAL SIGTERM
# Alive, not ready: a broker that is down is no reason to restart the gateway. Name the port in
# MQ_GATEWAY_SERVER__PORT where it is another one, or that of server.management, which speaks plain HTTP also where
# the gateway speaks HTTPS, in MQ_GATEWAY_SERVER__MANAGEMENT__PORT.
HEALTHCHECK --interval=10s --timeout=4s --start-period=20s --retries=3 \
    CMD ["python", "-I", "-S", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('MQ_GATEWAY_SERVER__MANAGEMENT__PORT') or os.environ.get('MQ_GATEWAY_SERVER__PORT') or 8080), timeout=3); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["mq-gateway"]
CMD ["serve"]
