# The service with its weights, for a GPU where there is one:
#     docker build -t precision-service .
#     docker run --rm --gpus all -p 127.0.0.1:8000:8000 precision-service
# For the CPU only, several GB smaller; torch and torchvision come from the same place, as they must:
#     docker build -t precision-service:cpu --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .
#     docker run --rm -p 127.0.0.1:8000:8000 precision-service:cpu
FROM python:3.12-slim

# Empty: torch with its CUDA libraries. An index of other builds of the same versions otherwise; it is asked for these two
# only (--no-deps). Its builds have other hashes: these two are trusted by where they come from.
ARG TORCH_INDEX=""
RUN --mount=type=bind,source=constraints.txt,target=/src/constraints.txt \
    if [ -n "${TORCH_INDEX}" ]; then \
        pip install --no-cache-dir --root-user-action=ignore -c /src/constraints.txt \
            --no-deps --index-url "${TORCH_INDEX}" torch torchvision; \
    fi
# Everything else by hash: what was not there when the hashes were made is not installed. With builds of torch from elsewhere
# the CUDA libraries stay out.
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

# PROMETHEUS_MULTIPROC_DIR is not set, on purpose: all metrics live in the HTTP process, workers report to it over their
# sockets. There is no directory to create, to wipe at start or to mount, and the service ignores the variable.
# PRECISION_ALLOW_ANONYMOUS: 0.0.0.0 is the container's own network; who reaches it is decided by what publishes the port.
# Where that is others than you, give keys: -e PRECISION_API_KEYS=..., or a mounted file and PRECISION_API_KEY_FILE.
ENV PYTHONUNBUFFERED=1 \
    PRECISION_ALLOW_ANONYMOUS=true \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

EXPOSE 8000
STOPSIGNAL SIGTERM
# ready, not live: what waits for a healthy container wants predictions. No proxy may come in between, hence http.client.
HEALTHCHECK --interval=15s --timeout=5s --start-period=300s --retries=4 CMD ["python", "-c", "\
import http.client, os, ssl; \
https = os.environ.get('PRECISION_SSL_CERTFILE'); \
c = http.client.HTTPSConnection('127.0.0.1', 8000, timeout=4, context=ssl._create_unverified_context()) if https \
    else http.client.HTTPConnection('127.0.0.1', 8000, timeout=4); \
c.request('GET', '/health/ready'); \
exit(c.getresponse().status != 200)"]
# Flags win over variables: PRECISION_HOST and PRECISION_PORT mean nothing here, publish the port as another instead.
CMD ["python", "-m", "service", "--host", "0.0.0.0", "--port", "8000"]
