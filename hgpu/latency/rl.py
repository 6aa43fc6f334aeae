"""Seconds of one iteration of a reinforcement-learning loop, by how its components share GPUs.

Two workflows (RLinf calls them reasoning and embodied):

- *pipeline*: rollout → inference → actor over M group batches. Components on the same GPUs take turns,
  T = Σ t_i. On GPUs of their own they work on different batches at once: with c_i = t_i / M a batch,
  T = Σ c_i + (M − 1)·max c_i. For two parts that is RLinf's (w_s + w_t) + (M − 1)·max(c_s, c_t), where the
  warm-up w of a part is the sum of its components' (`toolkits/auto_placement/placement.py` of RLinf/RLinf).
- *embodied*: H steps of E environments, each an action of the policy and a step of the simulator, then
  training. On shared GPUs both take turns. On GPUs of their own one waits for the other, unless the
  environments are divided into k stages that alternate (RLinf-VLA, arXiv 2510.06710, hybrid placement). The
  equations are ours: RLinf's tool knows no steps, and an older one divides by E without multiplying back.
"""

from collections.abc import Sequence

SOURCES = {
    "pipeline": "T = sum(t) on shared GPUs, sum(t)/M + (1 - 1/M) max(t) on own GPUs: RLinf's placement tool",
    "embodied": "T = H (e + g) on shared GPUs or with 1 stage, H max(k a, k b, a + b) + min(a, b) with k: "
    "hgpu's proposal after RLinf-VLA",
}


def turns_s(seconds: Sequence[float]) -> float:
    """Return T of components that share their GPUs."""
    return sum(seconds)


def pipelined_s(seconds: Sequence[float], batches: int) -> float:
    """Return T of components on GPUs of their own, over M batches."""
    return sum(seconds) / batches + (1 - 1 / batches) * max(seconds)


def rollout_s(env_s: float, policy_s: float, steps: int, stages: int = 1) -> float:
    """Return the seconds of H steps of simulator and policy on GPUs of their own.

    `env_s` (a) and `policy_s` (b) are those of one stage: of E/k environments. With one stage each waits for
    the other: H·(a + b). With more, the busier one never waits: H·k·max(a, b); a stage itself can't be
    faster than a + b a step; and the less busy one works once alone, at the start or the end: min(a, b).
    """
    if stages == 1:
        return steps * (env_s + policy_s)
    return steps * max(stages * env_s, stages * policy_s, env_s + policy_s) + min(env_s, policy_s)
