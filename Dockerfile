# Builds hostler and serves examples/bankchurn:
#
#   docker build -t hostler .
#   docker run --rm -p 127.0.0.1:8000:8000 -p 127.0.0.1:8002:8002 hostler
#
# Port 8000 serves predictions. Port 8002 serves administration and metrics: publish it only to the
# operators of the host. To serve something else, mount a folder and pass its manifest:
#
#   docker run -v ./mine:/mine:ro hostler serve /mine/hostler.toml \
#     --http 0.0.0.0:8000 --admin 0.0.0.0:8002
#
# The container runs as any user, and with a read-only root file system:
#
#   docker run --user 12345 --read-only --cap-drop ALL --security-opt no-new-privileges \
#     -v hostler-cache:/var/cache/hostler -v hostler-state:/var/lib/hostler hostler
#
# The host writes to these two volumes only: compiled plugins and temporary files to the first, last-good
# copies to the second. Stores of jobs and audit logs are where the manifest says: below
# /var/lib/hostler, such as `dir = "/var/lib/hostler/jobs"`.

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev locales python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
RUN rustup target add wasm32-wasip2
WORKDIR /src
COPY . .
ENV HOSTLER_CACHE=/cache CARGO_TARGET_DIR=/target
# The debug information is several times as large as the program.
RUN mkdir /out \
    && localedef -i en_US -f UTF-8 --no-archive /out/en_US.utf8 \
    && cp "$(cargo xtask ort)" /out/libonnxruntime.so \
    && cargo xtask plugin churn \
    && cargo build --release --locked --bin hostler \
    && strip --strip-debug -o /out/hostler /target/release/hostler \
    && cargo xtask sbom --out /out/hostler.cdx.json

FROM debian:bookworm-slim
# ONNX Runtime needs libstdc++. The folders are for any user, like /tmp: the host makes its own below
# them, with mode 0700. A new volume takes over this mode.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir -m 1777 /var/cache/hostler /var/lib/hostler
COPY --from=build --chmod=0755 /out/hostler /usr/local/bin/
COPY --from=build --chmod=0755 /out/libonnxruntime.so /usr/local/lib/
COPY --from=build --chmod=0644 /out/hostler.cdx.json /src/LICENSE /usr/local/share/doc/hostler/
# Models that process texts (StringNormalizer) ask for this locale; slim images lack it.
COPY --from=build /out/en_US.utf8 /usr/lib/locale/en_US.utf8
WORKDIR /srv/hostler
# The manifest's path of the plugin is relative, so the folders are laid out as in the repository.
COPY --from=build /src/examples/bankchurn examples/bankchurn
COPY --from=build /src/plugins/bin/churn.wasm plugins/bin/
ENV ORT_DYLIB_PATH=/usr/local/lib/libonnxruntime.so \
    HOSTLER_CACHE=/var/cache/hostler TMPDIR=/var/cache/hostler XDG_STATE_HOME=/var/lib
VOLUME ["/var/cache/hostler", "/var/lib/hostler"]
# A number, so that Kubernetes can check runAsNonRoot. The user needs no entry in /etc/passwd.
USER 10001:10001
EXPOSE 8000 8002
# The image has no curl; bash can send a request and read the status line.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/8000; printf 'GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3; head -1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["hostler"]
CMD ["serve", "examples/bankchurn/hostler.toml", "--http", "0.0.0.0:8000", "--admin", "0.0.0.0:8002"]
