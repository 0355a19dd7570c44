"""Holds rendered manifests, from standard input, against the schemas: validate.py NAME.

Strict: a property that no schema knows is an error, as it is for the API server that is asked to
validate strictly. What the Prometheus operator brings is held against monitoring.schema.json, the
part of its definitions that we use.
"""

import json
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

KUBERNETES = "1.32"

name = sys.argv[1]
schemas = json.loads((pathlib.Path(__file__).parent / "monitoring.schema.json").read_text())
problems = []
seen = set()
for resource in yaml.safe_load_all(sys.stdin):
    kind, metadata = resource["kind"], resource["metadata"]
    what = f"{kind}/{metadata['name']}"
    if what in seen:
        problems.append(f"{what}: is there twice")
    seen.add(what)
    try:
        if resource["apiVersion"].startswith("monitoring.coreos.com/"):
            jsonschema.Draft202012Validator(schemas[kind]).validate(resource)
        else:
            kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
        place = ".".join(str(step) for step in error.path)
        problems.append(f"{what}: {place}: {error.message}")
    except (kubernetes_validate.SchemaNotFoundError, KeyError) as error:
        problems.append(f"{what}: no schema: {error}")
if not seen:
    problems.append("nothing was rendered")
for problem in problems:
    print(f"deploy/{name}: {problem}", file=sys.stderr)
if problems:
    sys.exit(1)
print(f"deploy/{name}: {len(seen)} resources, valid for Kubernetes {KUBERNETES}")
