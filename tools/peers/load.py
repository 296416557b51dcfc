"""The load: wrk for throughput, and a simple client where an exact number of requests or connections matters."""
import re
import socket
import subprocess
import threading
import time

from rig import Failed, seconds_of

# The maximum time for one response, in seconds.
TIMEOUT = 30


def wrk(proxy, path, connections, seconds, body_bytes=0):
    """Loads `proxy` for this many seconds, and returns what a request cost.

    CPU times are in microseconds per request, memory in KiB.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{TIMEOUT}s", "--latency"]
    if body_bytes:
        script = proxy.rig.file("post.lua", f"""
wrk.method = "POST"
wrk.body = string.rep("p", {body_bytes})
wrk.headers["Content-Type"] = "application/json"
""")
        command += ["-s", str(script)]
    command = ["taskset", "-c", str(proxy.rig.load_core), *command, f"http://127.0.0.1:{proxy.port}{path}"]
    pids = proxy.running.pids()
    before = seconds_of(pids)
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 2 * TIMEOUT)
    user, system = (after - then for after, then in zip(seconds_of(pids), before))

    def number(pattern):
        found = re.search(pattern, done.stdout)
        return float(found.group(1)) if found else 0.0

    completed = number(r"(\d+) requests in")
    requests = max(completed, 1)
    return {
        "requests": completed,
        "refused": number(r"Non-2xx or 3xx responses: (\d+)"),
        "broken": sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", done.stdout))),
        "cpu_us": (user + system) / requests * 1e6,
        "user_us": user / requests * 1e6,
        "system_us": system / requests * 1e6,
        "a_second": number(r"Requests/sec:\s+([\d.]+)"),
        "p50_ms": milliseconds(done.stdout, "50%"),
        "p99_ms": milliseconds(done.stdout, "99%"),
        "resident_kib": proxy.running.resident_kib(),
    }


def steady(proxy, path, connections, warm_up, seconds):
    """What a request costs with this many busy connections, measured between two moments of one run of wrk.

    When clients disconnect in the middle of requests, proxies close the upstream connections too. Measuring complete runs would include
    a TLS handshake for each connection, up to a thousand of them.
    """
    command = ["taskset", "-c", str(proxy.rig.load_core), "wrk", "-t1", f"-c{connections}", f"-d{warm_up + seconds + 1}s",
               "--timeout", f"{TIMEOUT}s", f"http://127.0.0.1:{proxy.port}{path}"]
    pids = proxy.running.pids()
    load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        time.sleep(warm_up)
        before, requests = sum(seconds_of(pids)), proxy.rig.upstream_requests()
        time.sleep(seconds)
        after, requests = sum(seconds_of(pids)), proxy.rig.upstream_requests() - requests
        printed = load.communicate(timeout=2 * TIMEOUT)[0]
    finally:
        load.kill()
        load.wait()
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    broken = re.search(r"Socket errors: (.*[1-9].*)", printed)
    if refused or broken or requests < 2:
        raise Failed(f"{proxy.name}, {connections} connections, {requests} requests:\n{printed}{proxy.running.tail()}")
    return {"requests": requests, "cpu_us": (after - before) / requests * 1e6, "resident_kib": proxy.running.resident_kib()}


def problem(proxy, run):
    """The problem of a run, or None."""
    if not run["requests"]:
        return f"{proxy.name} sent no response:\n{proxy.running.tail()}"
    if run["refused"] or run["broken"]:
        return f"{proxy.name}: {run['refused']:.0f} responses not 2xx, {run['broken']} failed connections"
    return None


def milliseconds(printed, percentile):
    """A latency from wrk's output, in milliseconds."""
    found = re.search(rf"(?m)^\s+{percentile}\s+([\d.]+)(us|ms|s|m)$", printed)
    return float(found.group(1)) * {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}[found.group(2)] if found else 0.0


class Caller:
    """One connection to a proxy."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(1 << 18)

    def request(self, path, body=None):
        """Sends a request and reads the complete response. Returns its status."""
        method = "GET" if body is None else "POST"
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n".encode())
        if body:
            self.socket.sendall(body)
        head = b""
        while b"\r\n\r\n" not in head:
            part = self.socket.recv(65536)
            if not part:
                raise Failed("a connection was closed in the middle of a response head")
            head += part
        head, _, start = head.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not length:
            raise Failed("a response has no Content-Length")
        left = int(length.group(1)) - len(start)
        while left:
            read = self.socket.recv_into(self.buffer, min(left, len(self.buffer)))
            if not read:
                raise Failed("a connection was closed in the middle of a body")
            left -= read
        return int(head.split(b" ", 2)[1])

    def close(self):
        self.socket.close()


def get(port, path):
    """The status of one request on a new connection; 0 when there is no response."""
    try:
        caller = Caller(port)
        try:
            return caller.request(path)
        finally:
            caller.close()
    except (OSError, Failed):
        return 0


def exactly(proxy, path, requests, connections, body=None):
    """Sends exactly this many requests on this many connections. Returns the proxy's CPU seconds and the elapsed seconds.

    Unlike with wrk, no other requests are in flight before or after, so the cost is exactly that of these requests.
    """
    left, lock, problems = [requests], threading.Lock(), []

    def work():
        try:
            caller = Caller(proxy.port)
            while True:
                with lock:
                    if left[0] == 0 or problems:
                        break
                    left[0] -= 1
                status = caller.request(path, body)
                if status != 200:
                    raise Failed(f"{proxy.name} returned {status}")
            caller.close()
        except (OSError, Failed) as problem:
            problems.append(problem)

    pids = proxy.running.pids()
    before, started = sum(seconds_of(pids)), time.monotonic()
    threads = [threading.Thread(target=work, daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise Failed(f"{proxy.name}: {problems[0]}\n{proxy.running.tail()}")
    return sum(seconds_of(pids)) - before, time.monotonic() - started
