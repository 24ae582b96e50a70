# The service with its weights, in one of two images. For the CPU, without torch:
#     docker build -t precision-service:cpu --target cpu .
#     docker run --rm -p 127.0.0.1:8000:8000 precision-service:cpu
# With torch and its CUDA libraries, several GB larger, for a GPU, int8-dynamic and checkpoints of torch.save:
#     docker build -t precision-service:gpu --target gpu .
#     docker run --rm --gpus all -p 127.0.0.1:8000:8000 precision-service:gpu
# Every package is installed by hash.
FROM python:3.12-slim AS base

RUN useradd --create-home --uid 10001 precision
WORKDIR /home/precision

# PROMETHEUS_MULTIPROC_DIR is not set: the HTTP process holds all metrics, and the service ignores the variable.
# PRECISION_ALLOW_ANONYMOUS: 0.0.0.0 is the container's own network, and whatever publishes the port decides who reaches it.
# If others can reach it, set keys: -e PRECISION_API_KEYS=..., or a mounted file and PRECISION_API_KEY_FILE.
# TMPDIR: on a read-only root /dev/shm is still writable, and decoder processes are started through a socket in it.
ENV PYTHONUNBUFFERED=1 \
    TMPDIR=/dev/shm \
    PRECISION_ALLOW_ANONYMOUS=true

EXPOSE 8000
STOPSIGNAL SIGTERM
# The check asks /health/ready, because a healthy container must answer predictions. http.client ignores proxy variables.
HEALTHCHECK --interval=15s --timeout=5s --start-period=300s --retries=4 CMD ["python", "-c", "\
import http.client, os, ssl; \
https = os.environ.get('PRECISION_SSL_CERTFILE'); \
c = http.client.HTTPSConnection('127.0.0.1', 8000, timeout=4, context=ssl._create_unverified_context()) if https \
    else http.client.HTTPConnection('127.0.0.1', 8000, timeout=4); \
c.request('GET', '/health/ready'); \
exit(c.getresponse().status != 200)"]
# These flags win over PRECISION_HOST and PRECISION_PORT. To change the port, publish it under another number.
CMD ["python", "-m", "service", "--host", "0.0.0.0", "--port", "8000"]


FROM base AS cpu
RUN --mount=type=bind,source=deploy/requirements-cpu.txt,target=/src/requirements.txt \
    pip install --no-cache-dir --root-user-action=ignore --require-hashes -r /src/requirements.txt
RUN --mount=type=bind,target=/src,rw \
    pip install --no-cache-dir --root-user-action=ignore --no-index --no-deps --no-build-isolation /src
USER 10001


FROM base AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN --mount=type=bind,source=deploy/requirements.txt,target=/src/requirements.txt \
    pip install --no-cache-dir --root-user-action=ignore --require-hashes -r /src/requirements.txt
RUN --mount=type=bind,target=/src,rw \
    pip install --no-cache-dir --root-user-action=ignore --no-index --no-deps --no-build-isolation /src
USER 10001
