"""Profiles in the terminal and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from hgpu.artifacts.payloads.profile import ProfilePayload
from hgpu.artifacts.store import Artifact
from hgpu.latency.select import telemetry_of
from hgpu.profilers.telemetry_summary import CardTelemetry, by_card
from hgpu.report.output import console, table


def print_profiles(artifacts: Sequence[Artifact[ProfilePayload]]) -> None:
    """Print a row a profile, and what is doubtful about it."""
    out = console()
    out.print(profiles_table(artifacts))
    cards = cards_table(artifacts)
    if cards.row_count:
        out.print(cards)
    for artifact in artifacts:
        for reason in artifact.manifest.validity.reasons:
            out.print(f"{artifact.payload.point.name}: {reason}", markup=False, soft_wrap=True)


def profiles_table(artifacts: Sequence[Artifact[ProfilePayload]]) -> Table:
    """Return a row a profile: how it was taken, and what it holds."""
    rows = table(
        "",
        "operating point",
        "profiler",
        ">samples",
        ">noise",
        ">KV tokens",
        ">seconds",
        "engine",
        "source",
        "digest",
    )
    for artifact in artifacts:
        payload, manifest = artifact.payload, artifact.manifest
        rows.add_row(
            payload.point.name, payload.profiler, str(payload.samples), f"{payload.noise:.1%}",
            f"{payload.kv_capacity_tokens:,}", f"{manifest.timings.get('profile_s', 0.0):.0f}",
            manifest.environment.engine or "-", str(payload.provenance), artifact.short,
        )  # fmt: skip
    return rows


def cards_table(artifacts: Sequence[Artifact[ProfilePayload]]) -> Table:
    """Return a row a card: what it did over all runs; none where no card was read."""
    cards = [(a.payload.point.name, card) for a in artifacts for card in by_card(telemetry_of(a))]
    rows = table(
        "",
        "operating point",
        "card",
        ">power W mean/max/limit",
        ">SM MHz min/limit",
        ">memory MHz min/limit",
        ">hottest °C",
        ">memory GiB",
        ">ECC errors",
        "clocks held by",
    )
    for point, card in cards:
        rows.add_row(point, *_card_row(card))
    return rows


def _card_row(card: CardTelemetry) -> list[str]:
    used = card.memory_used_max_bytes
    return [
        card.card,
        _figures(card.power_mean_w, card.power_max_w, card.power_limit_w),
        _figures(card.sm_min_mhz, card.sm_limit_mhz),
        _figures(card.memory_min_mhz, card.memory_limit_mhz),
        _figures(card.temperature_max_c),
        "-" if used is None else f"{used / 2**30:.1f}",
        _figures(card.ecc_errors),
        "-" if card.throttle is None else ", ".join(card.throttle) or "nothing",
    ]


def _figures(*values: float | None) -> str:
    return "/".join("-" if value is None else f"{value:.0f}" for value in values)


def profiles_json(artifacts: Sequence[Artifact[ProfilePayload]]) -> dict[str, Any]:
    """Return the payloads with digest, path, validity and seconds."""
    return {
        "profiles": [
            {
                **artifact.payload.model_dump(mode="json"),
                "digest": artifact.digest,
                "path": str(artifact.path),
                "validity": artifact.manifest.validity.model_dump(),
                "timings": artifact.manifest.timings,
                "cards": [asdict(card) for card in by_card(telemetry_of(artifact))],
            }
            for artifact in artifacts
        ]
    }
