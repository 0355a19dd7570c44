"""Holds a compose file against the Compose specification: validate.py FILE.

Strict: a property that the specification does not know is an error, and so are names of volumes,
networks and secrets that are not defined, and mounted files that are not there.
"""

import json
import pathlib
import sys

import compose_spec
import yaml

path = pathlib.Path(sys.argv[1])
compose = yaml.safe_load(path.read_text())
problems = []
try:
    compose_spec.PyCompose.from_json(json.dumps(compose)).validate()
except ValueError as error:
    problems.append(str(error))

files = [secret["file"] for secret in compose.get("secrets", {}).values()]
for name, service in compose["services"].items():
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        if source.startswith("."):
            files.append(source)
        elif source not in compose.get("volumes", {}):
            problems.append(f"services.{name}.volumes: there is no volume {source}")
problems += [f"there is no {file}" for file in files if not (path.parent / file).exists()]

for problem in problems:
    print(f"deploy/{path.name}: {problem}", file=sys.stderr)
if problems:
    sys.exit(1)
print(f"deploy/{path.name}: {len(compose['services'])} services, valid")
