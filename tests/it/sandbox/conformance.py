"""Compares responses with the vendor's description of its API, an OpenAPI 3.0 document.

    conformance.py DESCRIPTION list             prints every operation with its documented statuses, as JSON
    conformance.py DESCRIPTION check RESPONSES  reads responses as lines of JSON (operation, status, type, body), prints what is wrong

Needs PyYAML and jsonschema, which are independent of this project.
"""

import json
import sys

try:
    import jsonschema
    import yaml
except ImportError as error:
    sys.exit(f"{error}: pip install pyyaml jsonschema")

METHODS = ("get", "post", "put", "delete", "patch")


def load(path):
    with open(path, encoding="utf-8") as file:
        return yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in METHODS:
                yield f"{method.upper()} {path}", operation["responses"]


def resolve(document, value):
    while "$ref" in value:
        target = document
        for part in value["$ref"][2:].split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        value = target
    return value


def as_draft_4(schema):
    """Converts `nullable` to the type `null` of JSON Schema. Accepts any type for error codes, because the description declares an object but
    documents a number or a string."""
    if isinstance(schema, list):
        return [as_draft_4(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "object" and "returned as a number or a string" in schema.get("description", ""):
        return {}
    kept = {name: as_draft_4(value) for name, value in schema.items() if name not in ("example", "examples", "default")}
    if kept.pop("nullable", False) is True and "type" in kept:
        kept["type"] = [kept["type"], "null"]
    return kept


def problems(document, components, responses, label, status, media, body):
    if status not in responses:
        return [f"{status} is not documented: {body[:200]!r}"]
    content = resolve(document, responses[status]).get("content", {})
    if not content:
        return [f"a body where none is documented: {body[:200]!r}"] if body else []
    if media not in content:
        return [f"{media} is not documented, only {', '.join(content)}"]
    if media != "application/json":
        return []
    schema = dict(as_draft_4(content[media]["schema"]), components=components)
    if "$ref" in schema:
        schema = {"allOf": [{"$ref": schema["$ref"]}], "components": components}
    validator = jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())
    return [f"{'/'.join(map(str, error.path))}: {error.message[:200]}" for error in validator.iter_errors(json.loads(body))]


def main():
    document = load(sys.argv[1])
    documented = dict(operations(document))
    if sys.argv[2] == "list":
        print(json.dumps([[label, sorted(responses)] for label, responses in documented.items()]))
        return
    components = {"schemas": as_draft_4(document["components"]["schemas"])}
    missing = {(label, status) for label, responses in documented.items() for status in responses}
    with open(sys.argv[3], encoding="utf-8") as file:
        for line in file:
            seen = json.loads(line)
            label, status = seen["operation"], str(seen["status"])
            missing.discard((label, status))
            found = problems(document, components, documented[label], label, status, seen["type"], seen["body"])
            for problem in found:
                print(f"{label} {status}: {problem}")
    for label, status in sorted(missing):
        print(f"{label} {status}: not seen")


main()
