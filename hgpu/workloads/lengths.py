"""Named distributions of request lengths, and the ad-hoc ones `fixed:` and `uniform:`."""

import re
from dataclasses import dataclass

import numpy as np

from hgpu.core.errors import InputError, UnknownName
from hgpu.workloads.fields import MAX_TOKENS
from hgpu.workloads.marginals import Lognormal, Marginal, Quantiles, Uniform
from hgpu.workloads.trace import Ints


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a mixture: its weight, and its input and output lengths, drawn independently."""

    weight: float
    input_tokens: Marginal
    output_tokens: Marginal


@dataclass(frozen=True, slots=True)
class LengthDistribution:
    """A distribution of (input, output) lengths in tokens.

    Input and output are drawn independently of one another, because the published figures are
    of each alone; in a mixture they are independent within a component only. `source` says
    which figures are published and which are assumed.
    """

    name: str
    description: str
    source: str
    components: tuple[Component, ...]

    def sample(self, n: int, seed: int = 0) -> tuple[Ints, Ints]:
        """Return n input lengths and n output lengths in tokens; the same seed gives the same."""
        if n < 0 or seed < 0:
            raise InputError(
                f"can't sample {n} lengths with seed {seed}", "one is negative", "give both from 0 up"
            )
        rng = np.random.default_rng(seed)
        weights = np.array([part.weight for part in self.components])
        which = rng.choice(len(weights), size=n, p=weights / weights.sum())
        input_tokens, output_tokens = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        for index, part in enumerate(self.components):
            mine = which == index
            count = int(mine.sum())
            input_tokens[mine] = part.input_tokens.sample(count, rng)
            output_tokens[mine] = part.output_tokens.sample(count, rng)
        return input_tokens, output_tokens


_PUBLISHED = (
    "mean, P50, P95 and P99 as published for serving benchmarks over this data set (which publication is not "
    "recorded); between the quantiles the shape is assumed log-linear"
)

_ARENA = Component(1.0, Lognormal(69.5, 1.2), Lognormal(214.5, 0.9))
_PUBMED = Component(1.0, Lognormal(4021, 0.6), Lognormal(271, 0.4))

_ARENA_SOURCE = (
    "means published for LMSYS-Chat-1M (arXiv 2309.11998: 69.5 tokens a prompt, 214.5 a response, earlier "
    "turns not counted), assumed to stand for the Arena data of Mélange (arXiv 2404.14527), for which no "
    "figures were found; the spread is assumed lognormal with sigma 1.2 and 0.9"
)
_PUBMED_SOURCE = (
    "assumed throughout: no figures were found for the PubMed data of Mélange (arXiv 2404.14527); means of "
    "3016 words a document and 203 a summary (attributed to Cohan et al., NAACL 2018, not checked) at 0.75 "
    "words a token, lognormal with sigma 0.6 and 0.4"
)


def _quantiles(
    name: str, description: str, source: str, inputs: Quantiles, outputs: Quantiles
) -> LengthDistribution:
    return LengthDistribution(name, description, source, (Component(1.0, inputs, outputs),))


_SHAREGPT = _quantiles(
    "sharegpt",
    "ShareGPT conversations: chat with some context",
    _PUBLISHED,
    Quantiles(mean=496, p50=432, p95=970, p99=1367),
    Quantiles(mean=97, p50=37, p95=383, p99=474),
)

# `chat` is ShareGPT: all its figures are published, while Arena's spread is assumed.
LENGTHS: dict[str, LengthDistribution] = {
    "sharegpt": _SHAREGPT,
    "chat": _SHAREGPT,
    "longdata": _quantiles(
        "longdata",
        "LongDataCollections: long documents, short answers",
        _PUBLISHED,
        Quantiles(mean=5905, p50=5461, p95=9292, p99=9817),
        Quantiles(mean=180, p50=159, p95=339, p99=454),
    ),
    "arxiv": _quantiles(
        "arxiv",
        "arXiv papers to be summarised",
        _PUBLISHED,
        Quantiles(mean=3832, p50=3575, p95=6460, p99=6894),
        Quantiles(mean=200, p50=181, p95=357, p99=443),
    ),
    "arena": LengthDistribution("arena", "Chatbot Arena: short chat", _ARENA_SOURCE, (_ARENA,)),
    "pubmed": LengthDistribution("pubmed", "PubMed articles to be summarised", _PUBMED_SOURCE, (_PUBMED,)),
    "mixed": LengthDistribution(
        "mixed",
        "80 % arena and 20 % pubmed, as in Mélange",
        f"80/20 mixture; arena: {_ARENA_SOURCE}; pubmed: {_PUBMED_SOURCE}",
        (
            Component(0.8, _ARENA.input_tokens, _ARENA.output_tokens),
            Component(0.2, _PUBMED.input_tokens, _PUBMED.output_tokens),
        ),
    ),
}

_FIXED = re.compile(r"fixed:(\d+)x(\d+)", re.ASCII)
_UNIFORM = re.compile(r"uniform:(\d+)-(\d+)x(\d+)-(\d+)", re.ASCII)


def find_lengths(name: str) -> LengthDistribution:
    """Return a distribution by name, or one made from `fixed:512x128` or `uniform:100-500x50-200`.

    Lengths are input x output in tokens, ranges include both ends. Raises UnknownName or InputError.
    """
    if name in LENGTHS:
        return LENGTHS[name]
    if match := _FIXED.fullmatch(name):
        inputs, outputs = match.groups()
        return _ad_hoc(name, "exact lengths", (inputs, inputs, outputs, outputs))
    if match := _UNIFORM.fullmatch(name):
        return _ad_hoc(name, "uniform lengths", match.groups())
    raise UnknownName("length distribution", name, [*LENGTHS, "fixed:INxOUT", "uniform:LOW-HIGHxLOW-HIGH"])


def _ad_hoc(name: str, description: str, numbers: tuple[str, ...]) -> LengthDistribution:
    """Return uniform lengths from input low and high, output low and high."""
    too_long = any(len(number) > len(str(MAX_TOKENS)) for number in numbers)
    bounds = [0, 0, 0, 0] if too_long else [int(number) for number in numbers]
    if not (1 <= bounds[0] <= bounds[1] <= MAX_TOKENS and 1 <= bounds[2] <= bounds[3] <= MAX_TOKENS):
        raise InputError(
            f"bad lengths '{name}'",
            f"lengths go from 1 to {MAX_TOKENS} tokens, the lower end of a range first",
            "write fixed:512x128 or uniform:100-500x50-200",
        )
    parts = Component(1.0, Uniform(bounds[0], bounds[1]), Uniform(bounds[2], bounds[3]))
    return LengthDistribution(name, description, "given by the user", (parts,))
