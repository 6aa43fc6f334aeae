"""How far the learning rate is up or down."""


def rate_at(step: int, steps: int, warmup_steps: int) -> float:
    """Return the part of the learning rate that a step (from 0) uses: up over the warm-up, then down to 0.

    Both linear, as Hugging Face's Trainer does by default.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return (steps - step) / (steps - min(warmup_steps, steps - 1))
