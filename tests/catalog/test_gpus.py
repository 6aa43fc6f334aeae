import sys
from types import SimpleNamespace

import pytest

from hgpu.catalog.gpus import attached_gpus, gpu_types, resolve_gpu
from hgpu.core.errors import HgpuError, UnknownName
from hgpu.core.gpu import DType

REQUIRED = [
    "T4",
    "V100",
    "L4",
    "A10G",
    "L20",
    "L40S",
    "A100-40GB",
    "A100-80GB",
    "H100-PCIe",
    "H100-NVL",
    "H100-SXM",
    "H200",
    "B200",
    "RTX-PRO-6000",
    "MI300X",
    "CPU",
]


@pytest.mark.parametrize("name", REQUIRED)
def test_required_types_are_held_and_resolve_to_themselves(name):
    assert gpu_types()[name].name == name
    assert resolve_gpu(name) == gpu_types()[name]


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("h100_sxm", "H100-SXM"),
        ("NVIDIA H100 80GB HBM3", "H100-SXM"),
        ("nvidia-h100-80gb", "H100-SXM"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("nvidia-l4", "L4"),
        ("l4", "L4"),
        ("Tesla T4", "T4"),
        ("a100-80gb", "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
        ("AMD Instinct MI300X", "MI300X"),
        ("cpu", "CPU"),
    ],
)
def test_aliases_and_nvml_names_resolve(alias, name):
    assert resolve_gpu(alias).name == name


def test_unknown_name_lists_the_nearest():
    with pytest.raises(UnknownName) as caught:
        resolve_gpu("H100-SMX")
    assert "H100-SXM" in caught.value.nearest
    assert "MI300X" in caught.value.why


@pytest.mark.parametrize("ambiguous", ["a100", "h100", "A10", "cpu-0core", "cpu--core", ""])
def test_ambiguous_and_near_names_are_not_guessed(ambiguous):
    with pytest.raises(UnknownName):
        resolve_gpu(ambiguous)


@pytest.mark.parametrize("gpu", gpu_types().values(), ids=lambda gpu: gpu.name)
def test_every_figure_is_positive_and_has_a_source(gpu):
    figures = (
        gpu.memory_bytes,
        gpu.memory_bandwidth_bytes_per_s,
        gpu.sm_count,
        gpu.host_link_bytes_per_s,
        gpu.peer_link_bytes_per_s,
        *gpu.flops_per_s.values(),
    )
    assert all(figure > 0 for figure in figures)
    assert DType.FP32 in gpu.flops_per_s
    assert gpu.source
    assert gpu.vendor in {"nvidia", "amd"}


@pytest.mark.parametrize("gpu", gpu_types().values(), ids=lambda gpu: gpu.name)
def test_narrower_formats_are_never_slower(gpu):
    rates = [
        gpu.flops_per_s[d] for d in (DType.FP32, DType.BF16, DType.FP8, DType.FP4) if d in gpu.flops_per_s
    ]
    assert rates == sorted(rates)


def test_rates_are_dense():
    assert resolve_gpu("H100-SXM").flops_per_s[DType.BF16] == pytest.approx(989e12, rel=0.01)
    assert resolve_gpu("A10G").flops_per_s[DType.BF16] == pytest.approx(70e12)
    assert resolve_gpu("L4").flops_per_s[DType.BF16] == pytest.approx(121e12, rel=0.01)


def test_formats_that_the_hardware_lacks_are_absent():
    assert DType.BF16 not in resolve_gpu("T4").flops_per_s
    assert DType.FP8 not in resolve_gpu("A100-80GB").flops_per_s
    assert [g.name for g in gpu_types().values() if DType.FP4 in g.flops_per_s] == ["B200", "RTX-PRO-6000"]


def test_memory_is_what_nvml_reports():
    assert resolve_gpu("H100-SXM").memory_bytes == pytest.approx(81_559 * 2**20, rel=1e-3)
    assert resolve_gpu("L4").memory_bytes == pytest.approx(23_034 * 2**20, rel=1e-3)


def test_cpu_family_scales_with_its_cores():
    one, two = resolve_gpu("cpu-1core"), resolve_gpu("CPU_2core")
    assert (one.name, one.cores, two.name, two.cores) == ("cpu-1core", 1, "cpu-2core", 2)
    assert two.is_cpu
    assert two.memory_bytes == 2 * one.memory_bytes
    assert two.memory_bandwidth_bytes_per_s == 2 * one.memory_bandwidth_bytes_per_s
    assert two.flops_per_s == {dtype: 2 * rate for dtype, rate in one.flops_per_s.items()}
    assert resolve_gpu("CPU").cores == 1
    assert not resolve_gpu("L4").is_cpu


def test_cpu_bandwidth_ends_at_the_socket():
    assert resolve_gpu("cpu-64core").memory_bandwidth_bytes_per_s == 460.8e9
    assert resolve_gpu("cpu-96core").memory_bandwidth_bytes_per_s == 460.8e9


def test_the_catalog_cannot_be_changed_by_a_caller():
    gpu_types().clear()
    assert "L4" in gpu_types()
    with pytest.raises(TypeError):
        resolve_gpu("L4").flops_per_s[DType.FP4] = 1.0


class NvmlError(Exception):
    def __init__(self, value):
        super().__init__(f"NVML error {value}")
        self.value = value


def nvml(monkeypatch, names, init_error=None):
    def init():
        if init_error is not None:
            raise NvmlError(init_error)

    fake = SimpleNamespace(
        NVMLError=NvmlError,
        NVML_ERROR_DRIVER_NOT_LOADED=9,
        NVML_ERROR_LIBRARY_NOT_FOUND=12,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: "580.1",
        nvmlDeviceGetCount=lambda: len(names),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: names[handle],
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=85_520_809_984),
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)


def test_attached_cards_keep_those_that_the_catalog_lacks(monkeypatch):
    nvml(monkeypatch, ["NVIDIA H100 80GB HBM3", "NVIDIA GeForce GTX 1080"])
    first, second = attached_gpus()
    assert (first.index, first.gpu, first.uuid) == (0, "H100-SXM", "GPU-0")
    assert (first.memory_bytes, first.driver_version) == (85_520_809_984, "580.1")
    assert (second.gpu, second.nvml_name) == (None, "NVIDIA GeForce GTX 1080")


@pytest.mark.parametrize("no_driver", [9, 12])
def test_no_driver_means_no_cards(monkeypatch, no_driver):
    nvml(monkeypatch, [], init_error=no_driver)
    assert attached_gpus() == []


def test_a_broken_driver_is_an_error_not_an_empty_list(monkeypatch):
    nvml(monkeypatch, [], init_error=18)
    with pytest.raises(HgpuError, match="driver"):
        attached_gpus()
