"""The user interface of all measurements: options, progress, Markdown tables, and figures as JSON."""
import json
import subprocess
import sys
from pathlib import Path

import proxies
from rig import Failed, interruptible, raise_open_files


def add_arguments(parser):
    """Adds the options that all measurements have."""
    parser.add_argument("--peers", default="nginx,HAProxy,Envoy", help="other proxies to measure, \"\" for none (all)")
    parser.add_argument("--binary", type=Path, help="finicity-proxy binary to measure (target/release/finicity-proxy)")
    parser.add_argument("--install", action="store_true", help="install missing programs: Debian packages, Envoy in target/peers")
    parser.add_argument("--json", type=Path, help="write the figures to this file")


def prepare(arguments, others):
    """Checks or installs all programs. Returns the proxies to measure, finicity-proxy first."""
    if arguments.binary:
        proxies.Ours.binary = arguments.binary.resolve()
    kinds = proxies.chosen(arguments.peers)
    proxies.prepare(kinds, arguments.install, others)
    raise_open_files(2 * proxies.CONNECTIONS)
    return kinds


def run(main):
    """Runs a measurement. Prints a failure in one line, and stops everything that was started."""
    interruptible()
    try:
        sys.exit(main())
    except (Failed, subprocess.TimeoutExpired) as problem:
        sys.exit(f"failed: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)


def progress(text):
    """Prints a progress line to standard error."""
    print(text, file=sys.stderr, flush=True)


def save(arguments, result):
    """Writes the figures to the file of --json, without insignificant digits."""
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rounded(result), indent=1, ensure_ascii=False) + "\n")


def rounded(value):
    """The value with at most two decimal places."""
    if isinstance(value, dict):
        return {key: rounded(of) for key, of in value.items()}
    if isinstance(value, list):
        return [rounded(of) for of in value]
    return round(value, 2) if isinstance(value, float) else value


def figure(value):
    """A number with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def markdown(head, rows):
    """A Markdown table."""
    lines = [head, ["---"] * len(head)] + rows
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def place(result):
    """When, where and with which versions the figures were measured, in one sentence."""
    at = result["machine"]
    versions = ", ".join(result["versions"].values())
    return f"{at['date']}, {at['cpu']}, {at['cores']} cores, {at['system']}, load {at['load_before']:.1f} before;\n{versions}.\n"
