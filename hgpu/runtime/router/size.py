"""How large a request is, as far as its body tells before anything has computed it."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Size:
    """The prompt in bytes of text or in token ids, and the most output tokens where that is said.

    Of several prompts in one request, the largest.
    """

    text_bytes: int
    token_ids: int
    max_tokens: int | None

    def input_tokens(self, bytes_per_token: float) -> float:
        """Return the prompt's tokens, of which text is an estimate."""
        return self.token_ids + self.text_bytes / bytes_per_token


def size_of(body: bytes) -> Size:
    """Return the size of a completion or chat completion.

    What isn't one counts by its bytes: it is the engine that tells its client what is wrong with it.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return Size(len(body), 0, None)
    limit = document.get("max_completion_tokens", document.get("max_tokens"))
    max_tokens = limit if isinstance(limit, int) and limit > 0 else None
    text, ids = _chat(document) if "messages" in document else _prompt(document.get("prompt"))
    return Size(text, ids, max_tokens)


def _prompt(prompt: Any) -> tuple[int, int]:
    """Return bytes and token ids of a string, of token ids, or of the largest of a list of either."""
    if isinstance(prompt, str):
        return len(prompt.encode(errors="replace")), 0
    if not isinstance(prompt, list) or not prompt:
        return 0, 0
    if isinstance(prompt[0], int):
        return 0, len(prompt)
    texts = [len(one.encode(errors="replace")) for one in prompt if isinstance(one, str)]
    return max(texts, default=0), max((len(one) for one in prompt if isinstance(one, list)), default=0)


def _chat(document: dict[str, Any]) -> tuple[int, int]:
    messages = document["messages"]
    if not isinstance(messages, list):
        return 0, 0
    parts = [message.get("content") for message in messages if isinstance(message, dict)]
    return sum(_content(part) for part in parts), 0


def _content(content: Any) -> int:
    if isinstance(content, str):
        return len(content.encode(errors="replace"))
    if not isinstance(content, list):
        return 0
    return sum(
        len(str(part.get("text", "")).encode(errors="replace")) for part in content if isinstance(part, dict)
    )
