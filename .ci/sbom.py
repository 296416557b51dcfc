#!/usr/bin/env python3
"""Checks a CycloneDX document against the dependency tree.

    .ci/sbom.py FILE

The document must list each crate of the program with all features on this platform, with version and licence.
"""
import json
import subprocess
import sys

document = json.load(open(sys.argv[1]))
assert document["bomFormat"] == "CycloneDX" and document["metadata"]["component"]["name"] == "finicity-proxy", "not the CycloneDX document of finicity-proxy"
named = {(component["name"], component["version"]) for component in document["components"]}
tree = subprocess.run(
    ["cargo", "tree", "--locked", "--all-features", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"],
    capture_output=True, text=True, check=True,
).stdout
used = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
used = {(name, version.removeprefix("v")) for name, version in used if name != "finicity-proxy"}
missing = sorted(used - named)
assert not missing, f"missing in the document: {missing}"
unlicensed = sorted(component["name"] for component in document["components"] if not component.get("licenses"))
assert not unlicensed, f"components without a licence: {unlicensed}"
print(f"ok: {len(named)} components, including all {len(used)} crates in use")
