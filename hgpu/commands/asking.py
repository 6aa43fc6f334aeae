"""The go-ahead for what costs money: given beforehand, or asked at a terminal."""

import sys

import typer

from hgpu.core.errors import InputError


def ask(why: str, fix: str) -> None:
    """Ask at a terminal; refuse elsewhere. Machines cost money, so nobody launches them by accident."""
    if not sys.stdin.isatty():
        raise InputError("nothing was changed: there was no go-ahead", why, fix)
    if not typer.confirm("go ahead?", err=True):
        raise InputError("nothing was changed", "you said no")
