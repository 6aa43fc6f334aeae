"""Answers of EC2 that moto doesn't give: botocore takes what a `before-send` handler returns."""

from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from botocore.awsrequest import AWSResponse


class Raw:
    def __init__(self, body):
        self.body = body

    def stream(self, **_):
        return iter([self.body])


def refusal(code, message="no", status=400):
    text = (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error></Errors>"
        "<RequestID>x</RequestID></Response>"
    )
    return status, text.encode()


class Faults:
    """Watches a client's calls in `calls`, and answers itself where a rule does."""

    def __init__(self, client):
        self.calls, self.rules = [], []
        client.meta.events.register("before-send.ec2", self)

    def add(self, operation, code, after=0, message="no", **words):
        """Refuse calls whose parameters contain words, but for the first few."""
        self.rules.append({"op": operation, "code": code, "after": after, "say": message, "words": words})

    def __call__(self, request, **_):
        body = request.body.decode() if isinstance(request.body, bytes) else request.body
        asked = {key: values[0] for key, values in parse_qs(body).items()}
        self.calls.append((asked["Action"], asked))
        for rule in self.rules:
            fits = all(word in asked.get(key, "") for key, word in rule["words"].items())
            if rule["op"] == asked["Action"] and fits:
                rule["after"] -= 1
                if rule["after"] >= 0:
                    continue
                status, answer = refusal(rule["code"], rule["say"])
                return AWSResponse(request.url, status, {}, Raw(answer))
        return None

    def names(self):
        return [name for name, _ in self.calls]
