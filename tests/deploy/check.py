"""Holds deploy/ against the schemas and rules of those it is written for.

    check.py              checks everything, says what is wrong, exits 1
    check.py render NAME  base or an overlay, rendered, as one JSON list

kubectl renders, the schemas of the oldest and the newest Kubernetes that is meant are held against
what comes out, unknown fields are errors; compose.yaml goes through a strict parser, the alerts
through promtool and their unit tests.
"""

import json
import pathlib
import subprocess
import sys

import compose_spec
import jsonschema
import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
DEPLOY = REPOSITORY / "deploy"
TOOLS = REPOSITORY / "target/deploy-tools/bin"
RENDERED = {
    "base": DEPLOY / "kubernetes/base",
    "dev": DEPLOY / "kubernetes/overlays/dev",
    "production": DEPLOY / "kubernetes/overlays/production",
}
# The first that knows a preStop that sleeps without a feature gate, and the newest with schemas.
KUBERNETES = ["1.30", "1.37"]

problems = []


def problem(where, what):
    problems.append(f"{where}: {what}")


def run(*command, cwd=None):
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        return None, (done.stdout + done.stderr).strip()
    # A warning is a field that a later version drops.
    return done.stdout, done.stderr.strip()


def render(name):
    out, said = run(TOOLS / "kubectl", "kustomize", RENDERED[name])
    if said:
        problem(name, said)
    return [document for document in yaml.safe_load_all(out or "") if document]


def validate(name, documents):
    crds = json.loads((HERE / "crds.json").read_text())
    for document in documents:
        kind = document["kind"]
        where = f"{name}: {kind} {document['metadata']['name']}"
        try:
            if kind in crds:
                jsonschema.validate(document, crds[kind])
                continue
            for version in KUBERNETES:
                kubernetes_validate.validate(document, version, strict=True)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
            problem(where, f"{'.'.join(map(str, error.path))}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            problem(where, error.message)


def same_rules(documents):
    alerts = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())
    rules = [document for document in documents if document["kind"] == "PrometheusRule"]
    if not rules or rules[0]["spec"] != alerts:
        problem("components/monitoring/prometheusrule.yaml", "differs from prometheus/alerts.yaml")


def compose():
    path = DEPLOY / "compose.yaml"
    try:
        compose_spec.PyCompose.from_yaml(path.read_text())
    except ValueError as error:
        problem("compose.yaml", error)


def alerts():
    promtool = TOOLS / "promtool"
    for verb in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        out, said = run(promtool, *verb, cwd=DEPLOY / "prometheus")
        if out is None:
            problem("prometheus", said)


def bait():
    """A check that finds nothing looks like one that has nothing to find."""
    documents = render("production")
    for document in documents:
        if document["kind"] in ("StatefulSet", "Ingress", "ServiceMonitor"):
            document["spec"]["bait"] = True
    before = len(problems)
    validate("bait", documents)
    caught = problems[before:]
    del problems[before:]
    if len(caught) < 3:
        problem("check.py", f"caught only {caught} of 3 unknown fields")


def main():
    if sys.argv[1:2] == ["render"]:
        json.dump(render(sys.argv[2]), sys.stdout)
    else:
        for name in RENDERED:
            documents = render(name)
            validate(name, documents)
            if name == "production":
                same_rules(documents)
        bait()
        compose()
        if (TOOLS / "promtool").exists():
            alerts()
        else:
            print("deploy/prometheus is not checked: there is no promtool", file=sys.stderr)
    for each in problems:
        print(each, file=sys.stderr)
    sys.exit(1 if problems else 0)


main()
