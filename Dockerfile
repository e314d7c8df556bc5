# avsnn with the versions that were tested together. docs/install.md says how to build and run the image.
ARG PYTHON=3.13
FROM python:${PYTHON}-slim

# avsnn compiles its kernels for the CPU of the machine that runs the image, on first use.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

# An index that holds another build of torch, for a CPU alone or for another version of CUDA.
ARG TORCH_INDEX=
COPY LICENSE README.md constraints.txt pyproject.toml /src/
COPY avsnn /src/avsnn
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c /src/constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} /src \
    && avsnn --version

RUN useradd --create-home --uid 1000 avsnn \
    && mkdir -p /work/data /work/runs \
    && chown -R avsnn:avsnn /work
USER avsnn
WORKDIR /work
VOLUME ["/work/data", "/work/runs"]
ENTRYPOINT ["avsnn"]
CMD ["--help"]
