"""Answers of EC2 that moto doesn't give: botocore takes what a `before-send` handler returns."""

from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from botocore.awsrequest import AWSResponse


class Raw:
    def __init__(self, body):
        self.body = body

    def stream(self, **_):
        return iter([self.body])


SPOT = """\
<DescribeSpotInstanceRequestsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">\
<requestId>x</requestId><spotInstanceRequestSet>{rows}</spotInstanceRequestSet>\
</DescribeSpotInstanceRequestsResponse>"""
SPOT_ROW = """\
<item><spotInstanceRequestId>sir-1</spotInstanceRequestId><instanceId>{id}</instanceId><state>active</state>\
<status><code>{code}</code><message>x</message><updateTime>{at}</updateTime></status></item>"""


def refusal(code, message="no", status=400):
    text = (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error></Errors>"
        "<RequestID>x</RequestID></Response>"
    )
    return status, text.encode()


class Faults:
    """Watches a client's calls in `calls`, and answers itself where a rule does."""

    def __init__(self, client):
        self.calls, self.rules, self.notices = [], [], {}
        client.meta.events.register("before-send.ec2", self)

    def add(self, operation, code, after=0, message="no", **words):
        """Refuse calls whose parameters contain words, but for the first few."""
        self.rules.append({"op": operation, "code": code, "after": after, "say": message, "words": words})

    def notice(self, instance_id, at, code="marked-for-termination"):
        """Let the request of a spot machine have a status since a time: moto has no requests of machines."""
        self.notices[instance_id] = SPOT_ROW.format(id=instance_id, code=code, at=at.isoformat())

    def __call__(self, request, **_):
        body = request.body.decode() if isinstance(request.body, bytes) else request.body
        asked = {key: values[0] for key, values in parse_qs(body).items()}
        self.calls.append((asked["Action"], asked))
        if asked["Action"] == "DescribeSpotInstanceRequests" and self.notices:
            values = [value for key, value in asked.items() if key.startswith("Filter.1.Value")]
            rows = "".join(self.notices[ident] for ident in values if ident in self.notices)
            return AWSResponse(request.url, 200, {}, Raw(SPOT.format(rows=rows).encode()))
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
