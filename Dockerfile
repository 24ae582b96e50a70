# The service with its weights. With a GPU:
#     docker build -t precision-service .
#     docker run --rm --gpus all -p 127.0.0.1:8000:8000 precision-service
# For the CPU only, several GB smaller, with torch and torchvision from PyTorch's index of CPU builds:
#     docker build -t precision-service:cpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
#     docker run --rm -p 127.0.0.1:8000:8000 precision-service:cpu
FROM python:3.12-slim

# An index with other builds of the same versions of torch and torchvision. Empty: the builds with CUDA libraries. Only these two
# packages come from it (--no-deps). They have other hashes than deploy/requirements.txt, so they are trusted by their source.
ARG TORCH_INDEX=""
RUN --mount=type=bind,source=constraints.txt,target=/src/constraints.txt \
    if [ -n "${TORCH_INDEX}" ]; then \
        pip install --no-cache-dir --root-user-action=ignore -c /src/constraints.txt \
            --no-deps --index-url "${TORCH_INDEX}" torch torchvision; \
    fi
# All other packages are installed by hash. With TORCH_INDEX, torch and its CUDA libraries are left out here.
RUN --mount=type=bind,source=deploy/requirements.txt,target=/src/requirements.txt \
    awk -v other="${TORCH_INDEX}" \
        '/^[a-z]/ { skip = other && /^(torch|torchvision|triton|cuda-[a-z]+|nvidia-(cu|nccl|nv)[a-z0-9-]*)==/ } !skip' \
        /src/requirements.txt > /tmp/requirements.txt && \
    pip install --no-cache-dir --root-user-action=ignore --require-hashes -r /tmp/requirements.txt && \
    rm /tmp/requirements.txt
RUN --mount=type=bind,target=/src,rw \
    pip install --no-cache-dir --root-user-action=ignore --no-index --no-deps --no-build-isolation /src

RUN useradd --create-home --uid 10001 precision
USER 10001
WORKDIR /home/precision

# PROMETHEUS_MULTIPROC_DIR is not set: the HTTP process holds all metrics, and the service ignores the variable.
# PRECISION_ALLOW_ANONYMOUS: 0.0.0.0 is the container's own network, and whatever publishes the port decides who reaches it.
# If others can reach it, set keys: -e PRECISION_API_KEYS=..., or a mounted file and PRECISION_API_KEY_FILE.
ENV PYTHONUNBUFFERED=1 \
    PRECISION_ALLOW_ANONYMOUS=true \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

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
