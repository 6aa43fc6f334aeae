"""What a sweep of shares measures."""

from dataclasses import dataclass

from hgpu.core.partition import Load, OperatorClass, Work


@dataclass(frozen=True, slots=True)
class ShareSample:
    """The seconds that a work of one class took alone on a share of the device."""

    kind: OperatorClass
    share: float
    work: Work
    seconds: float


@dataclass(frozen=True, slots=True)
class ContentionSample:
    """The seconds of decode attention alone and beside prefill, on the same share.

    `load` holds the bytes of both sides, `attention_part` is the part of prefill's time in its attention.
    """

    load: Load
    attention_part: float
    alone_s: float
    beside_s: float
