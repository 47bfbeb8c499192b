# Two images from one build: `docker build --target node .` and `docker build --target coordinator .`
FROM python:3.11-slim AS base

WORKDIR /app
# hivemind keeps what peers average in shared memory: run with --ipc=host or --shm-size=2g
ENV COTRAIN_VENV=/opt/cotrain \
    COTRAIN_SHARED=/data/shared \
    COTRAIN_CONFIGS=/app/configs \
    COTRAIN_HOME=/data/home \
    PATH=/opt/cotrain/bin:$PATH \
    PYTHONUNBUFFERED=1
# The processor's build of torch; for a GPU: --build-arg TORCH_INDEX=https://pypi.org/simple
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY scripts ./scripts
COPY cotrain ./cotrain
COPY node ./node
COPY coordinator ./coordinator
COPY configs ./configs
RUN PIP_EXTRA_INDEX_URL=$TORCH_INDEX PIP_NO_CACHE_DIR=1 scripts/install.sh \
    && useradd --create-home --uid 1000 cotrain \
    && mkdir -p /data && chown cotrain /data
USER cotrain
VOLUME /data

FROM base AS coordinator
EXPOSE 8000 31330
# inside a container every address must be listened on; publish the port to where it may be reached from
CMD ["cotrain", "coordinator", "serve", "--host", "0.0.0.0", "--port", "8000", "--swarm-host", "0.0.0.0", "--swarm-port", "31330"]

FROM base AS node
# COTRAIN_URL: the session's address, http://<coordinator>:8000/s/<session>
CMD ["sh", "-c", "exec cotrain node join \"$COTRAIN_URL\" --host 0.0.0.0"]
