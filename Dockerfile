# The image: one static program, the list of what it is built from, and directories for its state and its socket. No shell, no library.
#
#   docker build -t finicity-proxy .
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/finicity-proxy:VERSION --push .
#
# Whatever the target, it is compiled on the builder's own platform, so nothing is emulated. The same bytes again need the same
# compiler: --build-arg RUST_IMAGE=rust:1.95.0-bookworm@sha256:… names it.

ARG RUST_IMAGE=rust:1-bookworm
# What lists the crates. Not optimised: it runs once.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS sbom
ARG CARGO_CYCLONEDX=0.5.9
ENV CARGO_HOME=/usr/local/cargo
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo install --locked --debug --version "$CARGO_CYCLONEDX" --root /tools cargo-cyclonedx

FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS build
ARG BUILDARCH TARGETARCH
# Where both images keep what cargo fetched.
ENV CARGO_HOME=/usr/local/cargo

# Whatever version of the cross compiler Debian has: it is the release's own.
# hadolint ignore=DL3008
RUN set -eu; \
    case "$TARGETARCH" in \
        amd64) machine=x86_64 debian=x86-64 ;; \
        arm64) machine=aarch64 debian=aarch64 ;; \
        *) echo "no image is made for ${TARGETARCH:-a builder that names no target: use BuildKit}" >&2; exit 1 ;; \
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

# The sandbox and the demo are commands of their own, which `serve` shares nothing with: they are here so that the image can be
# tried without an account.
ARG FEATURES=--all-features
# What `finicity-proxy --version --verbose` shows. Without a date, the list of crates has none, and the files have that of 1970.
ARG SOURCE_DATE_EPOCH=0
ARG REVISION=unknown
# The crates and what was compiled of them stay in caches, so a change of the code compiles the code alone. Cargo goes by the
# times of files, which an older checkout with the same caches would have older: `touch` makes the code new in any case.
#
# glibc is linked statically (figures in docs/performance.md); bookworm's resolves names by files and DNS without loading a
# library. No path of this build is in the program. Cargo wants to see the files of tests and benchmarks, and reads none.
#
# The directories belong to group 0, so that a platform that gives each container a user of its own, in that group, can write them.
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
      org.opencontainers.image.description="A sidecar that lets services call the Finicity API without holding a credential" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
# FINICITY_IMAGE__… are defaults that every setting of an operator overrides; a socket that cannot be made there is only a warning.
ENV PATH=/usr/local/bin \
    FINICITY__LISTEN__OPS=[::]:3465 \
    FINICITY__AUTH__STATE_DIR=/var/lib/finicity-proxy \
    FINICITY_IMAGE__ADMIN__SOCKET=/run/finicity-proxy/admin.sock \
    FINICITY_IMAGE__STARTUP__TERMINATION_MESSAGE=/dev/termination-log
EXPOSE 3465
USER 65532:65532
# Alive, not ready: who acts on this, such as Docker Swarm, restarts, and no restart brings a token. Kubernetes has its own probes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["finicity-proxy", "health", "live"]
ENTRYPOINT ["finicity-proxy"]
