#!/usr/bin/env python3
"""Checks a CycloneDX document against the dependency tree.

    .ci/sbom.py FILE

It must name each crate that the program with all features is built from on this platform, with its version and its licence.
"""
import json
import subprocess
import sys

document = json.load(open(sys.argv[1]))
assert document["bomFormat"] == "CycloneDX" and document["metadata"]["component"]["name"] == "finicity-proxy", "another document"
named = {(component["name"], component["version"]) for component in document["components"]}
tree = subprocess.run(
    ["cargo", "tree", "--locked", "--all-features", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"],
    capture_output=True, text=True, check=True,
).stdout
used = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
used = {(name, version.removeprefix("v")) for name, version in used if name != "finicity-proxy"}
missing = sorted(used - named)
assert not missing, f"not in the document: {missing}"
unlicensed = sorted(component["name"] for component in document["components"] if not component.get("licenses"))
assert not unlicensed, f"no licence: {unlicensed}"
print(f"ok: {len(named)} components, with each of the {len(used)} crates that are used here")
