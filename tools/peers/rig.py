"""The basis of all measurements: processes on chosen cores, certificates, the upstream, and the kernel's counters.

All traffic uses 127.0.0.1. All processes end with the `with` block of their `Rig`, even if it is interrupted.
"""
import ctypes
import datetime
import json
import os
import platform
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or PROJECT / "target")

# Debian installs servers in directories that only root's PATH includes.
os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"

# The upstream issues this token, and requires it and the App Key in every request.
TOKEN = "measured." + "t" * 80
APP_KEY = "c0ffee00c0ffee00c0ffee00c0ffee00"

CUSTOMERS = "/aggregation/v1/customers?limit=5"
ACCOUNTS = "/aggregation/v1/customers/1005061234/accounts"

# The sizes of the upstream's responses to `/body/SIZE`.
BODIES = [0, 1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 10 << 20, 100 << 20]

# The maximum times for a process to respond after its start, and to exit after a signal, in seconds.
START_TIMEOUT = 20
STOP_TIMEOUT = 5

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Failed(Exception):
    """A failure, with what to do about it."""


def interruptible():
    """Makes SIGTERM and SIGHUP end this program like Ctrl-C: together with everything that it started."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: sys.exit(130))


def cores():
    """(the core for the proxy, the core for load and upstream)."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise Failed("two cores are needed: one for the proxy, one for the load and the upstream")
    return usable[0], usable[1]


def raise_open_files(wanted):
    """Raises RLIMIT_NOFILE for this process and its children to `wanted`, or as far as the system permits. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in ((wanted, max(wanted, hard)), (min(wanted, hard), hard)):
        try:
            if soft < limit[0]:
                resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            break
        except (ValueError, OSError):
            continue
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def free_port():
    """An unused port of 127.0.0.1."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def seconds_of(pids):
    """(user, system) CPU time used so far by these processes together, in seconds."""
    user = system = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user, system = user + int(fields[11]), system + int(fields[12])
    tick = os.sysconf("SC_CLK_TCK")
    return user / tick, system / tick


class Running:
    """A process and its descendants, in their own session. Their output goes into a file."""

    def __init__(self, name, command, on, log, environment):
        parent = os.getpid()
        read, write = os.pipe()

        def before_exec():
            os.sched_setaffinity(0, set(on))
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)
            os.write(write, repr(time.monotonic()).encode())

        self.name, self.log = name, Path(log)
        clean = {"PATH": os.environ["PATH"], **(environment or {})}
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=clean, start_new_session=True, preexec_fn=before_exec,
            )
        # The time of exec, without Python's overhead before it.
        self.started = float(os.read(read, 64))
        os.close(read)
        os.close(write)

    def pids(self):
        """All processes of the session."""
        found = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and os.getsid(int(entry)) == self.process.pid:
                    found.append(int(entry))
            except ProcessLookupError:
                pass
        return found

    def exact_seconds(self):
        """CPU time used so far by all running threads, in seconds, with the scheduler's precision."""
        threads = [task for pid in self.pids() for task in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(int(task.read_text().split()[0]) for task in threads) / 1e9

    def resident_kib(self):
        """Resident memory of the largest process of the session, in KiB."""
        sizes = [0]
        for pid in self.pids():
            found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
            sizes += [int(found.group(1))] if found else []
        return max(sizes)

    def tail(self):
        """The end of the log, for error messages."""
        return self.log.read_text(errors="replace")[-800:]

    def stop(self):
        """Stops all processes of the session: with SIGTERM, then with SIGKILL."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, signum)
                self.process.wait(STOP_TIMEOUT)
                return
            except ProcessLookupError:
                self.process.wait(STOP_TIMEOUT)
                return
            except subprocess.TimeoutExpired:
                continue


class Rig:
    """A temporary directory, certificates, the upstream, and all processes started here."""

    def __init__(self, http2=False):
        self.http2 = http2
        self.proxy_core, self.load_core = cores()
        self.running = []

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="finicity-proxy-peers-")
        self.folder = Path(self.temporary.name)
        self.folder.chmod(0o755)  # nginx workers run as another user when root starts it
        try:
            self.make_certificates()
            self.start_upstream()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for running in reversed(self.running):
            running.stop()
        self.temporary.cleanup()

    def file(self, name, text=None):
        """The path of a file in the directory. Writes `text` to it, if given."""
        path = self.folder / name
        if text is not None:
            path.write_text(text)
        return path

    def run(self, name, command, on, environment=None):
        """Starts a process on these cores."""
        running = Running(name, command, on, self.file(f"{name}.log"), environment)
        self.running.append(running)
        return running

    def make_certificates(self):
        """Creates a CA, and the upstream's certificate for `localhost`."""
        def openssl(*arguments):
            done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, cwd=self.folder)
            if done.returncode:
                raise Failed(f"openssl {arguments[0]} failed: {done.stderr.strip()}")

        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        authority = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
        openssl("req", "-x509", *curve, "-days", 2, "-subj", "/CN=peers", *authority, "-keyout", "ca.key", "-out", "ca.pem")
        openssl("req", *curve, "-subj", "/CN=localhost", "-keyout", "upstream.key", "-out", "upstream.csr")
        self.file("names", "subjectAltName = DNS:localhost, IP:127.0.0.1\nextendedKeyUsage = serverAuth\n")
        openssl("x509", "-req", "-in", "upstream.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", 1,
                "-days", 2, "-extfile", "names", "-out", "upstream.pem")

    def start_upstream(self):
        """Starts nginx over TLS. It returns 401 to requests without both headers, and reads a request body before it responds.

        A `return` alone would respond before the body arrives, and then a proxy may close the client's connection.
        """
        www = self.folder / "www"
        www.mkdir()
        customer = {"id": "1005061234", "type": "testing", "username": "customer", "createdDate": "1412792539",
                    "firstName": "f" * 380, "lastName": "l" * 420}
        response = json.dumps({"found": 1, "displaying": 1, "moreAvailable": False, "customers": [customer]})
        (www / "customers").write_text(response)
        (www / "body").mkdir()
        for size in BODIES:
            with open(www / "body" / str(size), "wb") as body:
                for _ in range(0, size, 1 << 20):
                    body.write(b"b" * min(size, 1 << 20))
        self.upstream_port = free_port()
        token = json.dumps({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 7200})
        scratch = "".join(f"{kind}_temp_path {self.folder}/up-{kind};\n" for kind in
                          ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        config = f"""
daemon off;
pid {self.folder}/upstream.pid;
error_log stderr;
worker_processes 1;
worker_rlimit_nofile {raise_open_files(8192)};
events {{ worker_connections 8000; }}
http {{
    {scratch}
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_max_body_size 128m;
    default_type application/json;
    map_hash_bucket_size 512;
    map "$http_authorization $http_finicity_app_key" $stranger {{
        default 1;
        "Bearer {TOKEN} {APP_KEY}" 0;
    }}
    server {{
        listen 127.0.0.1:{self.upstream_port} ssl {"http2" if self.http2 else ""} backlog=4096;
        ssl_certificate {self.folder}/upstream.pem;
        ssl_certificate_key {self.folder}/upstream.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        root {www};
        location = /oauth/token {{ return 200 '{token}'; }}
        location /body/ {{ if ($stranger) {{ return 401; }} }}
        location = {ACCOUNTS} {{
            if ($stranger) {{ return 401; }}
            client_body_buffer_size 128m;
            proxy_pass http://response;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Content-Length "";
            proxy_pass_request_body off;
        }}
        location / {{
            if ($stranger) {{ return 401; }}
            try_files /customers =404;
        }}
    }}
    upstream response {{
        server unix:{self.folder}/response.sock;
        keepalive 64;
    }}
    server {{
        listen unix:{self.folder}/response.sock;
        location / {{ return 200 '{response}'; }}
        location = /status {{ stub_status; }}
    }}
}}
"""
        upstream = self.run("upstream", ["nginx", "-c", self.file("upstream.conf", config)], {self.load_core})
        until(lambda: connects(self.upstream_port), upstream, "does not listen")

    def upstream_requests(self):
        """The number of requests to the upstream so far."""
        with socket.socket(socket.AF_UNIX) as status:
            status.settimeout(STOP_TIMEOUT)
            status.connect(str(self.folder / "response.sock"))
            status.sendall(b"GET /status HTTP/1.0\r\n\r\n")
            text = status.makefile().read()
        return int(re.search(r"requests\s+\d+ \d+ (\d+)", text).group(1))


def until(condition, running, problem):
    """Waits until `condition` holds. Fails when `running` exits, or after START_TIMEOUT."""
    end = time.monotonic() + START_TIMEOUT
    while not condition():
        if running.process.poll() is not None or time.monotonic() > end:
            raise Failed(f"{running.name} {problem}:\n{running.tail()}")
        time.sleep(0.01)


def connects(port):
    """Whether a process listens on this port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def machine():
    """The machine and the time. Figures can be compared only within one machine."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system() + " " + platform.release().split("-")[0],
        "load_before": os.getloadavg()[0],
    }
