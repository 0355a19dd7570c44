"""Providers' own libraries, for the tests: one question on stdin as JSON, one answer on stdout.

    {"do": "sign", "library": …, "secret": …, "id": …, "timestamp": …, "body": …}  the headers
    {"do": "verify", "library": …, "secret": …, "headers": {…}, "body": …}         "ok" or why not
    {"do": "parse", "content_type": …, "headers": {…}, "body": …}                  the CloudEvent
    {"do": "describe", "document": …, "answers": [{"path", "method", "status", "content_type",
     "body"}]}                                  what is wrong with the document or the answers
    {"do": "validate", "schema": …, "values": […]}      of each value, what the schema says is wrong
"""

import base64
import datetime
import json
import sys


def sign(question):
    library, secret, body = question["library"], question["secret"], question["body"]
    timestamp = question["timestamp"]
    if library == "stripe":
        import stripe

        signed = f"{timestamp}.{body}"
        signature = stripe.WebhookSignature._compute_signature(signed, secret)
        return {"Stripe-Signature": f"t={timestamp},v1={signature}"}
    at = datetime.datetime.fromtimestamp(timestamp, tz=datetime.timezone.utc)
    webhook, prefix = standard_webhook(library, secret)
    return {
        f"{prefix}-id": question["id"],
        f"{prefix}-timestamp": str(timestamp),
        f"{prefix}-signature": webhook.sign(question["id"], at, body),
    }


def verify(question):
    webhook, _ = standard_webhook(question["library"], question["secret"])
    headers = {name.lower(): value for name, value in question["headers"].items()}
    try:
        webhook.verify(question["body"], headers)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "ok"


def standard_webhook(library, secret):
    if library == "svix":
        import svix

        return svix.webhooks.Webhook(secret), "svix"
    import standardwebhooks

    return standardwebhooks.webhooks.Webhook(secret), "webhook"


def parse(question):
    from cloudevents.core.bindings import rabbitmq

    message = rabbitmq.RabbitMQMessage(
        headers=question["headers"],
        content_type=question["content_type"],
        body=base64.b64decode(question["body"]),
    )
    event = rabbitmq.from_rabbitmq_event(message)
    data = event.get_data()
    if isinstance(data, bytes):
        data = {"base64": base64.b64encode(data).decode()}
    attributes = event.get_attributes()
    return {"attributes": {name: str(value) for name, value in attributes.items()}, "data": data}


def describe(question):
    import openapi_spec_validator
    from jsonschema import Draft202012Validator

    document = question["document"]
    wrong = [
        f"document: {error.message}"
        for error in openapi_spec_validator.OpenAPIV31SpecValidator(document).iter_errors()
    ]
    for answer in question["answers"]:
        name = f"{answer['method']} {answer['path']} {answer['status']}"
        pointer = [answer["path"], answer["method"].lower(), "responses", str(answer["status"])]
        response = document["paths"]
        for part in pointer:
            response = response.get(part)
            if response is None:
                break
        if response is None:
            wrong.append(f"{name}: not described")
            continue
        if "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
        media = response["content"].get(answer["content_type"])
        if media is None:
            wrong.append(f"{name}: {answer['content_type']} is not described")
            continue
        # References are to the document, so the schema goes where they lead.
        schema = {**media["schema"], "components": document["components"]}
        for error in Draft202012Validator(schema).iter_errors(answer["body"]):
            wrong.append(f"{name}: {error.json_path}: {error.message}")
    return wrong


def validate(question):
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(question["schema"])
    validator = Draft202012Validator(question["schema"])
    return [
        [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
        for value in question["values"]
    ]


question = json.load(sys.stdin)
verbs = {
    "sign": sign,
    "verify": verify,
    "parse": parse,
    "describe": describe,
    "validate": validate,
}
print(json.dumps(verbs[question["do"]](question)))
