#!/usr/bin/env python3
"""Runs the program as in a systemd unit, in front of its sandbox, but without systemd.

    .ci/systemd.py UNIT PROGRAM

Sets the environment and the credentials of the unit, and acts as the service manager. Checks under strace that the unit's filter allows
every system call.
"""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIMEOUT = 60
SECRETS = {"client_id": "sandbox-client", "client_secret": "sandbox-Secret-1!", "app_key": "sandbox-app-key-0123456789abcdef"}


def settings(unit, name):
    """The values of a setting, in order."""
    return [line.split("=", 1)[1] for line in unit.splitlines() if line.startswith(name + "=")]


def system_calls(words):
    """The names of all system calls in a SystemCallFilter=."""
    names = set()
    for word in words.split():
        if not word.startswith("@"):
            names.add(word)
            continue
        listed = subprocess.run(["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True).stdout
        for line in listed.splitlines()[1:]:
            if not line.strip().startswith("#"):
                names |= system_calls(line.strip())
    return names


def allowed(unit):
    # systemd needs these to execute the program, regardless of the filter.
    names = system_calls("@default") | {"execve"}
    for value in settings(unit, "SystemCallFilter"):
        if value.startswith("~"):
            names -= system_calls(value[1:])
        else:
            names |= system_calls(value)
    return names


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(what, check):
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        if check():
            return
        time.sleep(0.05)
    sys.exit(f"failed: timed out after {TIMEOUT} s: {what}")


def main():
    unit, program = Path(sys.argv[1]).read_text(), sys.argv[2]
    scratch = Path(tempfile.mkdtemp())
    processes = []
    try:
        for name in ("credentials", "state", "run"):
            (scratch / name).mkdir(mode=0o700)
        for value in settings(unit, "LoadCredential"):
            name, _ = value.split(":", 1)
            (scratch / "credentials" / name).write_text(SECRETS[name] + "\n")
        specifiers = {"%d": "credentials", "%S/finicity-proxy": "state", "%t/finicity-proxy": "run"}
        environment = {}
        for value in settings(unit, "Environment"):
            name, value = value.split("=", 1)
            for specifier, directory in specifiers.items():
                value = value.replace(specifier, str(scratch / directory))
            assert "%" not in value, f"{name} has a specifier that this script does not support"
            environment[name] = value
        upstream, proxy, ops, admin = (free_port() for _ in range(4))
        ca_file = scratch / "ca.pem"
        processes.append(subprocess.Popen([program, "sandbox", "--listen", f"127.0.0.1:{upstream}", "--ca-file", ca_file], stdout=subprocess.DEVNULL, start_new_session=True))
        wait_until("the sandbox has started", lambda: ca_file.exists() and ca_file.stat().st_size > 0)
        notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notified.bind(str(scratch / "notify"))
        notified.settimeout(TIMEOUT)
        environment |= {
            "NOTIFY_SOCKET": str(scratch / "notify"),
            "FINICITY__UPSTREAM__URL": f"https://localhost:{upstream}",
            "FINICITY__UPSTREAM__CA_FILE": str(ca_file),
            # READY=1 must mean that there is a token and requests succeed, even on a busy machine.
            "FINICITY__STARTUP__REQUIRE_TOKEN": "true",
            "FINICITY__UPSTREAM__CONNECT_TIMEOUT": "60s",
            "FINICITY__LISTEN__PROXY": f"127.0.0.1:{proxy}",
            "FINICITY__LISTEN__OPS": f"127.0.0.1:{ops}",
            "FINICITY__LISTEN__ADMIN": f"127.0.0.1:{admin}",
        }
        command = settings(unit, "ExecStart")[0].split()[1:]
        trace = scratch / "trace"
        run = subprocess.Popen(["strace", "-f", "-qq", "-o", trace, program, *command], env=environment, stdout=(scratch / "log").open("w"), start_new_session=True)
        processes.append(run)

        def expect(state):
            while True:
                lines = notified.recv(4096).decode().splitlines()
                if state in lines:
                    return
                assert all(line.startswith("STATUS=") for line in lines), lines

        expect("READY=1")
        print("ok: READY=1 once there is a token")
        subprocess.run(["curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{proxy}/aggregation/v1/customers"], check=True)
        subprocess.run([program, "status"], env=environment, check=True, stdout=subprocess.DEVNULL)
        assert (scratch / "run/admin.sock").exists() and any((scratch / "state").iterdir()), "the program does not use its directories"
        pid = int(re.match(r"\d+", trace.read_text())[0])
        os.kill(pid, signal.SIGHUP)
        wait_until("the reload after SIGHUP", lambda: "configuration reloaded" in (scratch / "log").read_text())
        os.kill(pid, signal.SIGTERM)
        expect("STOPPING=1")
        assert run.wait(TIMEOUT) == 0, "the program did not exit with 0"
        print("ok: STOPPING=1 and exit code 0 on SIGTERM")
        # A line is "PID name(…", or "PID <... name resumed>…".
        used = set(re.findall(r"^\d+ +(?:<\.\.\. )?([a-z_0-9]+)(?:\(| resumed)", trace.read_text(), re.MULTILINE))
        forbidden = used - allowed(unit)
        assert len(used) > 30 and not forbidden, f"the unit forbids {sorted(forbidden)}"
        print(f"ok: the unit allows all {len(used)} system calls")
    except BaseException:
        log = scratch / "log"
        print(log.read_text() if log.exists() else "no log", file=sys.stderr)
        raise
    finally:
        for process in processes:
            # Kill the process group: otherwise, the program would outlive strace.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(scratch)


main()
