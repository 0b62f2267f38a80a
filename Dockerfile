# CenterNet with all that it needs, for the CPU (the default) or NVIDIA GPUs:
#
#     docker build --target cpu --tag centernet .
#     docker build --target cuda --tag centernet:cuda .
#     docker run --rm -v "$PWD:/work" centernet demo ctdet --load_model model_best.pth --demo photos --output found
#     docker run --rm --gpus all --shm-size 8g -v "$PWD:/work" centernet:cuda train ctdet --dataset mine --exp_id mine
#
# Paths are those in the folder that is mounted at /work. Data loaders share memory: --shm-size, or --num_workers 0.

FROM python:3.12-slim AS wheel
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir build
WORKDIR /sources
COPY setup.py pyproject.toml requirements.txt MANIFEST.in README.md LICENSE ./
COPY src src
RUN CENTERNET_REQUIRE_KERNELS=1 python -m build --wheel --outdir /wheels

FROM python:3.12-slim AS base
# The kernels' threads: libgomp. OpenCV comes without windows, which need libGL.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
ENV PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp/matplotlib XDG_CACHE_HOME=/tmp/cache
WORKDIR /work
ENTRYPOINT ["centernet"]
CMD ["--help"]

FROM base AS cuda
RUN pip install --no-cache-dir torch torchvision
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/*.whl)[onnx,tensorboard,headless]" \
    && pip uninstall --yes opencv-python \
    && pip install --no-cache-dir --no-deps --force-reinstall opencv-python-headless

FROM base AS cpu
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/*.whl)[onnx,tensorboard,headless]" \
    && pip uninstall --yes opencv-python \
    && pip install --no-cache-dir --no-deps --force-reinstall opencv-python-headless
