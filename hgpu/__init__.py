"""hgpu: the cheapest GPUs that run a language model within its latency objective, launched and proved."""

__version__ = "0.1.0"
