"""`python -m hgpu` is `hgpu`."""

from hgpu.cli import main

main()
