"""One request and what came back of it, and the kinds of error that it can end in."""

from dataclasses import dataclass

# What an error begins with, beside `HTTP 429` and other status codes. After it may come `: ` and more.
CONNECT = "connect"
TLS = "TLS"
CLOSED_EARLY = "closed early"
TIMEOUT = "timeout"
BAD_RESPONSE = "bad response"
SERVER_ERROR = "server error"
NO_TOKEN = "no token"
NO_USAGE = "no usage"
OUTPUT_TOKENS = "output tokens"
PROMPT_TOKENS = "prompt tokens"


def kind_of(error: str) -> str:
    """Return the kind of an error, without what is told of the single request."""
    return error.partition(":")[0]


@dataclass(slots=True)
class Exchange:
    """A request in flight. Moments are seconds of `time.monotonic`, 0 where they haven't come.

    `sent_s` is when the harness took it up: what connecting costs is the server's. `input_tokens` and
    `output_tokens` are what the server counted, 0 until it says; `wanted_*` what was asked for.
    """

    number: int
    intended_s: float
    wanted_input: int
    wanted_output: int
    sent_s: float = 0.0
    first_s: float = 0.0
    last_s: float = 0.0
    longest_gap_s: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    error: str = ""
    retried: bool = False

    def verdict(self) -> str:
        """Return what is wrong with a response that came to its end; empty where nothing is."""
        if self.error:
            return self.error
        if not self.first_s:
            return NO_TOKEN
        if not self.output_tokens:
            return NO_USAGE
        if self.output_tokens != self.wanted_output:
            return f"{OUTPUT_TOKENS}: asked for {self.wanted_output}, the server counted {self.output_tokens}"
        if self.input_tokens and self.input_tokens != self.wanted_input:
            return f"{PROMPT_TOKENS}: sent {self.wanted_input}, the server counted {self.input_tokens}"
        return ""
