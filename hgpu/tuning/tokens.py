"""From documents to tokens: what is given, and what is learned."""

from typing import Any

from hgpu.core.errors import InputError
from hgpu.tuning.documents import Chat, Example

Tokens = list[int]


def encode(tokenizer: Any, text: str) -> Tokens:
    """Return a text's tokens, with no others before or after them."""
    tokens: Tokens = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    return tokens


def encode_example(tokenizer: Any, document: Example | Chat) -> tuple[Tokens, Tokens]:
    """Return the tokens of a prompt and those of what shall follow it, ended as the model ends an answer.

    The prompt's are those it has alone, as it is what a server is sent. Raises InputError for a chat that the
    tokenizer has no template for, or whose template refuses it.
    """
    if isinstance(document, Chat):
        prompt, answer = _templated(tokenizer, document)
    else:
        prompt, answer = document.prompt, document.completion + tokenizer.eos_token
    given, whole = encode(tokenizer, prompt), encode(tokenizer, prompt + answer)
    if whole[: len(given)] == given:
        return given, whole[len(given) :]
    return given, encode(tokenizer, answer)  # a token would reach over the border


def _templated(tokenizer: Any, chat: Chat) -> tuple[str, str]:
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise InputError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template",
            "it is what makes a text of `messages`",
            "give a model that was trained on chats, or lines with a `prompt` and a `completion`",
        )
    try:
        whole: str = tokenizer.apply_chat_template(chat.messages, tokenize=False)
        prompt: str = tokenizer.apply_chat_template(
            chat.messages[:-1], tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in chat.messages)
        raise InputError(
            f"the chat template of {tokenizer.name_or_path} refuses a chat",
            f"{error} (its roles: {roles})",
            "use the roles that the model was trained on",
        ) from error
    if not whole.startswith(prompt):
        raise InputError(
            f"the chat template of {tokenizer.name_or_path} can't be trained on",
            "with an answer it writes what is before it differently than without",
            "write lines with a `prompt` and a `completion`",
        )
    return prompt, whole.removeprefix(prompt)
