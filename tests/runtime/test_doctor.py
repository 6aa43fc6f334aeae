"""`hgpu doctor`: attached cards through stand-ins of NVML's functions, and logs through the command line."""

import json
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
from tests_types import Run

from hgpu.runtime.doctor import examine
from hgpu.runtime.faults import Action, Kind, action_by_card, judge

HEALTHY: dict[str, object] = {
    "nvmlDeviceGetTotalEccErrors": 0,
    "nvmlDeviceGetEccMode": [1, 1],
    "nvmlDeviceGetRemappedRows": [0, 0, 0, 0],
    "nvmlDeviceGetCurrentClocksEventReasons": 0,
    "nvmlDeviceGetCurrPcieLinkWidth": 16,
    "nvmlDeviceGetMaxPcieLinkWidth": 16,
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
}


def install(monkeypatch: pytest.MonkeyPatch, **told: object) -> None:
    """One H100 that answers so; an exception is raised."""

    def answer(value: object) -> object:
        if isinstance(value, Exception):
            raise value
        return value

    basics: dict[str, object] = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlSystemGetDriverVersion": "580.65",
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": "handle",
        "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
        "nvmlDeviceGetUUID": "GPU-8f6d2c9a",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 * 2**30),
    }
    for name, value in {**basics, **HEALTHY, **told}.items():
        getattr(pynvml, name)  # the real module has it
        monkeypatch.setattr(pynvml, name, lambda *_, value=value: answer(value))


def error(code: int) -> pynvml.NVMLError:
    return pynvml.NVMLError(code)


def test_a_healthy_card_has_no_symptom(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    (card,) = examine()
    assert card.name == "GPU 0" and card.card.gpu == "H100-SXM"
    assert card.symptoms == () and card.unknown == ()


@pytest.mark.parametrize(("told", "kind", "action"), [
    ({"nvmlDeviceGetTotalEccErrors": 2}, Kind.ECC_UNCORRECTED, Action.REPLACE),
    ({"nvmlDeviceGetEccMode": [0, 1]}, Kind.ECC_OFF, Action.WATCH),
    ({"nvmlDeviceGetRemappedRows": [1, 1, 1, 0]}, Kind.REMAP_PENDING, Action.REPLACE),
    ({"nvmlDeviceGetRemappedRows": [1, 1, 0, 1]}, Kind.REMAP_FAILURE, Action.REPLACE),
    ({"nvmlDeviceGetCurrentClocksEventReasons": 64}, Kind.THROTTLE, Action.WATCH),
    ({"nvmlDeviceGetCurrPcieLinkWidth": 8}, Kind.LINK_WIDTH, Action.WATCH),
    ({"nvmlDeviceGetEnforcedPowerLimit": 400_000}, Kind.POWER_LIMIT, Action.WATCH),
    ({"nvmlDeviceGetEccMode": error(pynvml.NVML_ERROR_GPU_IS_LOST)}, Kind.LOST, Action.REPLACE),
])  # fmt: skip
def test_what_is_wrong_with_a_card_is_seen(
    told: dict[str, object], kind: Kind, action: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, **told)
    (card,) = examine()
    assert [symptom.kind for symptom in card.symptoms] == [kind]
    assert action_by_card(judge(card.symptoms)) == {"GPU 0": action}


def test_a_card_may_idle_and_be_capped_and_remapped_before(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, nvmlDeviceGetCurrentClocksEventReasons=1 | 4, nvmlDeviceGetRemappedRows=[3, 1, 0, 0])
    (card,) = examine()
    assert card.symptoms == ()


def test_what_a_card_does_not_tell_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    unsupported = error(pynvml.NVML_ERROR_NOT_SUPPORTED)
    install(monkeypatch, nvmlDeviceGetEccMode=unsupported, nvmlDeviceGetRemappedRows=unsupported)
    (card,) = examine()
    assert card.symptoms == () and card.unknown == ("error correction", "remapped rows")


def test_a_log_with_a_dead_card_ends_in_exit_4(hgpu: Run, tmp_path: Path) -> None:
    log = tmp_path / "dmesg"
    log.write_text("[ 12.5] NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.\n")
    done = hgpu("doctor", "--replay", str(log), "--json")
    assert done.returncode == 4, done.stderr
    said = json.loads(done.stdout)
    assert said["actions"] == {"0000:3b:00": "replace"} and said["findings"][0]["time_s"] == 12.5
    shown = hgpu("doctor", "--replay", str(log))
    assert shown.returncode == 4 and "0000:3b:00: cordon, drain, replace" in shown.stdout


def test_a_log_without_faults_ends_in_exit_0(hgpu: Run, tmp_path: Path) -> None:
    log = tmp_path / "dmesg"
    log.write_text("[ 0.0] Linux version 6.8.0\n")
    done = hgpu("doctor", "--replay", str(log))
    assert done.returncode == 0 and "no symptom in" in done.stdout


def test_an_empty_log_is_no_clean_bill_of_health(hgpu: Run, tmp_path: Path) -> None:
    """`dmesg | hgpu doctor --replay -` where dmesg isn't permitted."""
    log = tmp_path / "empty.log"
    log.write_text("")
    done = hgpu("doctor", "--replay", str(log))
    assert done.returncode == 2 and "it is empty" in done.stderr and "no symptom" not in done.stdout


def test_a_log_that_is_not_there_is_an_input_error(hgpu: Run) -> None:
    done = hgpu("doctor", "--replay", "nowhere")
    assert done.returncode == 2 and "can't read nowhere" in done.stderr
