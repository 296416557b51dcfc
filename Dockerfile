# The image: one static program, its bill of materials, and directories for its state and its socket. No shell, no libraries.
#
#   docker build -t finicity-proxy .
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/finicity-proxy:VERSION --push .
#
# The program is always compiled on the builder's own platform, so nothing is emulated. A reproducible build needs a pinned compiler:
# --build-arg RUST_IMAGE=rust:1.95.0-bookworm@sha256:….

ARG RUST_IMAGE=rust:1-bookworm
# The tool that lists the crates. Not optimised, because it runs only once.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS sbom
ARG CARGO_CYCLONEDX=0.5.9
ENV CARGO_HOME=/usr/local/cargo
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo install --locked --debug --version "$CARGO_CYCLONEDX" --root /tools cargo-cyclonedx

FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS build
ARG BUILDARCH TARGETARCH
# Both stages share this cache of downloaded crates.
ENV CARGO_HOME=/usr/local/cargo

# The cross compiler is not pinned: its version is fixed by the Debian release.
# hadolint ignore=DL3008
RUN set -eu; \
    case "$TARGETARCH" in \
        amd64) machine=x86_64 debian=x86-64 ;; \
        arm64) machine=aarch64 debian=aarch64 ;; \
        *) echo "unsupported target: ${TARGETARCH:-none (TARGETARCH is not set: use BuildKit)}" >&2; exit 1 ;; \
    esac; \
    triple="$machine-unknown-linux-gnu"; \
    echo "$triple" >/triple; \
    if [ "$TARGETARCH" != "$BUILDARCH" ]; then \
        apt-get update; \
        apt-get install -y --no-install-recommends "gcc-$debian-linux-gnu" "libc6-dev-$TARGETARCH-cross"; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    [ -d "$(rustc --print sysroot)/lib/rustlib/$triple" ] || rustup target add "$triple"

WORKDIR /src
COPY --from=sbom /tools/bin/cargo-cyclonedx /usr/local/bin/
COPY Cargo.toml Cargo.lock build.rs ./
COPY config config
COPY src src

# Includes the sandbox and the demo, so that the image can be tried without an account. They are separate commands and share nothing with
# `serve`.
ARG FEATURES=--all-features
# `finicity-proxy --version --verbose` shows these. Without a date, the bill of materials has none, and the files are dated 1970.
ARG SOURCE_DATE_EPOCH=0
ARG REVISION=unknown
# Downloaded and compiled crates stay in caches, so a code change recompiles only the code. Cargo compares file times, which may be older
# than the caches in an older checkout: `touch` forces a rebuild of the code.
#
# glibc is linked statically (figures in docs/performance.md); bookworm's glibc resolves names by files and DNS without loading a library.
# The program contains no paths of this build. Cargo requires the files of tests and benchmarks to exist, but does not read them.
#
# The directories belong to group 0, so that platforms that run each container as its own UID in that group can write to them.
# hadolint ignore=SC2086
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    set -eu; \
    triple=$(cat /triple); \
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc; \
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc; \
    export RUSTFLAGS='-C target-feature=+crt-static --remap-path-prefix=/usr/local/cargo/registry/src=crates --remap-path-prefix=/src=.'; \
    mkdir -p benches tests/it; \
    touch benches/load.rs tests/it/main.rs src/lib.rs src/main.rs; \
    export SOURCE_REVISION="$REVISION"; \
    cargo build --locked --release --bin finicity-proxy --target "$triple" $FEATURES; \
    install -D -m 0555 "target/$triple/release/finicity-proxy" /image/usr/local/bin/finicity-proxy; \
    cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$triple" $FEATURES --override-filename finicity-proxy.cdx; \
    install -D -m 0444 finicity-proxy.cdx.json /image/usr/share/sbom/finicity-proxy.cdx.json; \
    install -d -o 65532 -g 0 -m 0770 /image/var/lib/finicity-proxy /image/run/finicity-proxy; \
    find /image -exec touch --date="@$SOURCE_DATE_EPOCH" {} +

FROM scratch
ARG VERSION=0.1.0 REVISION=unknown
LABEL org.opencontainers.image.title="finicity-proxy" \
      org.opencontainers.image.description="A sidecar that lets services call the Finicity API without credentials" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
# FINICITY_IMAGE__… are defaults, which every operator setting overrides. If the socket cannot be created there, it is only a warning.
ENV PATH=/usr/local/bin \
    FINICITY__LISTEN__OPS=[::]:3465 \
    FINICITY__AUTH__STATE_DIR=/var/lib/finicity-proxy \
    FINICITY_IMAGE__ADMIN__SOCKET=/run/finicity-proxy/admin.sock \
    FINICITY_IMAGE__STARTUP__TERMINATION_MESSAGE=/dev/termination-log
EXPOSE 3465
USER 65532:65532
# Liveness, not readiness: Docker Swarm restarts unhealthy containers, and a restart does not help to obtain a token. Kubernetes uses its own
# probes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["finicity-proxy", "health", "live"]
ENTRYPOINT ["finicity-proxy"]
