"""The catalog in the terminal."""

import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from hgpu.catalog.gpus import AttachedGpu
from hgpu.core.gpu import GpuType
from hgpu.core.offer import Offer
from hgpu.report.output import console, table, usd


def print_catalog(attached: Sequence[AttachedGpu], types: Sequence[GpuType], offers: Sequence[Offer]) -> None:
    """Print attached GPUs, GPU types, and offers by price of a GPU."""
    out = console()
    rows = table("attached", ">index", "GPU type", "NVML name", ">GiB", "driver")
    for card in attached:
        known = card.gpu or "not in the catalog"
        rows.add_row(
            str(card.index), known, card.nvml_name, f"{card.memory_bytes / 2**30:.0f}", card.driver_version
        )
    out.print(rows if attached else "no GPU attached (NVML found none)")
    out.print()
    out.print(_types(types))
    out.print()
    out.print(_offers(offers))


def catalog_json(
    attached: Sequence[AttachedGpu], types: Sequence[GpuType], offers: Sequence[Offer]
) -> dict[str, Any]:
    """Return the same as JSON, in bytes, FLOP/s and USD."""
    rows = [{field.name: getattr(gpu, field.name) for field in fields(gpu)} for gpu in types]
    return {
        "attached": [asdict(card) for card in attached],
        "types": [{**row, "flops_per_s": dict(row["flops_per_s"])} for row in rows],
        "offers": [{"name": offer.name, **asdict(offer)} for offer in offers],
    }


def _types(types: Sequence[GpuType]) -> object:
    formats = ("fp32", "bf16", "fp8")
    rows = table(
        "GPU types (dense peaks)",
        "GPU",
        ">GiB",
        ">GB/s",
        *(f">{f} TFLOP/s" for f in formats),
        ">SMs",
        ">link GB/s",
        "source",
    )
    for gpu in types:
        peaks = {str(key): value for key, value in gpu.flops_per_s.items()}
        rows.add_row(
            gpu.name,
            f"{gpu.memory_bytes / 2**30:.0f}",
            f"{gpu.memory_bandwidth_bytes_per_s / 1e9:,.0f}",
            *(
                f"{peaks[f] / 1e12:,.0f}"
                if peaks.get(f, 0) >= 1e12
                else f"{peaks[f] / 1e12:.2f}"
                if f in peaks
                else "-"
                for f in formats
            ),
            str(gpu.sm_count or "-"),
            f"{gpu.host_link_bytes_per_s / 1e9:.0f}",
            re.split(r";| \(", gpu.source)[0],
        )
    return rows


def _offers(offers: Sequence[Offer]) -> object:
    rows = table(
        "offers, cheapest GPU-hour first",
        "offer",
        "region",
        "market",
        "GPU",
        ">GPUs",
        ">USD/h",
        ">USD/GPU-h",
        "price of",
    )
    for offer in sorted(offers, key=lambda o: (o.usd_per_gpu_hour, o.name)):
        rows.add_row(
            offer.name,
            offer.region,
            str(offer.market),
            offer.gpu,
            str(offer.gpu_count),
            usd(offer.usd_per_hour),
            usd(offer.usd_per_gpu_hour),
            offer.price_date,
        )
    return rows
