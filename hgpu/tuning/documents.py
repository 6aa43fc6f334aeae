"""From the files of a dataset to its documents: texts, prompts with their completions, or chats."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgpu.core.errors import InputError

FORMS = (".txt", ".jsonl")
MESSAGES = '{"messages": [{"role": "…", "content": "…"}, …]}'
FIX = 'write it as {"text": "…"}, {"prompt": "…", "completion": "…"} or ' + MESSAGES


@dataclass(frozen=True, slots=True)
class Text:
    """A text, of which every token is learned."""

    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """What is given and what shall follow it, of which the completion alone is learned."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages with `role` and `content`, of which the last, the assistant's, alone is learned."""

    messages: Sequence[dict[str, str]]


Documents = list[Text] | list[Example] | list[Chat]


def data_files(data: str) -> list[Path]:
    """Return a file of texts, or a folder's .txt and .jsonl files by name; InputError where it has none."""
    path = Path(data)
    if not path.is_dir():
        return [path]
    if files := sorted(file for file in path.iterdir() if file.suffix in FORMS):
        return files
    raise InputError(f"no data in {path}", "it has no .txt or .jsonl file", "add one")


def read_documents(data: str) -> Documents:
    """Return the documents of a file or a folder, all of one kind.

    A .txt file is one Text; each line of a .jsonl file is an object with a `text`, with a `prompt` and a
    `completion`, or with `messages`. Raises InputError that names the file and the line.
    """
    found: list[Any] = []
    for path in data_files(data):
        for where, document in _documents(path):
            if found and type(document) is not type(found[0]):
                raise InputError(
                    f"{where}: another kind of document",
                    f"it is a {_noun(document)}, and what comes before it is a {_noun(found[0])}",
                    "put each kind into a dataset of its own",
                )
            found.append(document)
    return found


def _noun(document: Text | Example | Chat) -> str:
    return {Text: "text", Example: "prompt with its completion", Chat: "chat"}[type(document)]


def _documents(path: Path) -> list[tuple[str, Text | Example | Chat]]:
    if path.suffix not in FORMS:
        raise InputError(
            f"can't read data from {path}",
            f"'{path.suffix or path.name}' isn't a known form",
            f"give {' or '.join(FORMS)}",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it isn't UTF-8"
        raise InputError(f"can't read data from {path}", why, "check the path and the file") from error
    if path.suffix == ".txt":
        return [(str(path), Text(text))] if text.strip() else []
    lines = [(f"{path}, line {number}", line) for number, line in enumerate(text.split("\n"), start=1)]
    return [(where, _document(line, where)) for where, line in lines if line.strip()]


def _document(line: str, where: str) -> Text | Example | Chat:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON", str(error), "put one object on each line") from error
    match row:
        case {"text": str(text)}:
            return Text(text)
        case {"prompt": str(prompt), "completion": str(completion)}:
            return Example(prompt, completion)
        case {"messages": [*messages]}:
            return Chat(_messages(messages, where))
    raise InputError(f"{where}: no text", "it isn't an object with strings of a known name", FIX)


def _messages(messages: list[Any], where: str) -> list[dict[str, str]]:
    for number, message in enumerate(messages, start=1):
        match message:
            case {"role": str(), "content": str()}:
                continue
        raise InputError(
            f"{where}: message {number} isn't one", "it needs a role and a content, both strings", FIX
        )
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise InputError(
            f"{where}: nothing to learn",
            "the last of at least two messages is what is learned, and it isn't the assistant's",
            "end it with the answer of the role `assistant`",
        )
    return [{"role": message["role"], "content": message["content"]} for message in messages]
