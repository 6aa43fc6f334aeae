"""What symptoms of a GPU mean, and the logs that tell of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.core.errors import InputError
from hgpu.runtime.fault_log import read_symptoms
from hgpu.runtime.faults import XIDS, Action, Finding, Kind, Symptom, action_by_card, judge

CARD = "GPU 0"


def xid(number: int, moment_s: float | None = None, card: str = CARD) -> Symptom:
    return Symptom(card, Kind.XID, number, moment_s)


def slowed(reason: str, moment_s: float) -> Symptom:
    return Symptom(CARD, Kind.THROTTLE, reason, moment_s)


def actions(*symptoms: Symptom) -> list[Action]:
    return [finding.action for finding in judge(symptoms)]


@pytest.mark.parametrize("number", [48, 63, 64, 74, 79, 94, 95, 119])
def test_faults_of_the_card_take_it_away(number: int) -> None:
    assert actions(xid(number)) == [Action.REPLACE]


@pytest.mark.parametrize("number", [13, 31, 43])
def test_faults_of_a_process_restart_it(number: int) -> None:
    assert actions(xid(number)) == [Action.RESTART]


def test_an_xid_without_a_rule_is_watched_and_says_so() -> None:
    (finding,) = judge([xid(9999)])
    assert finding.action is Action.WATCH and "NVIDIA's list" in finding.meaning


def test_three_faults_of_processes_within_an_hour_are_the_card_s() -> None:
    assert actions(xid(31, 0), xid(43, 1800), xid(13, 3600)) == [Action.RESTART] * 2 + [Action.REPLACE]
    assert actions(xid(31, 0), xid(43, 1800), xid(13, 3601)) == [Action.RESTART] * 3
    assert actions(xid(31, 0), xid(31, 1, "GPU 1"), xid(31, 2)) == [Action.RESTART] * 3
    assert actions(xid(31), xid(31), xid(31)) == [Action.RESTART] * 3  # nobody knows when


def test_a_slowdown_that_lasts_is_the_cooling_s() -> None:
    hot = "HW thermal slowdown"
    assert actions(slowed(hot, 0), slowed(hot, 299)) == [Action.WATCH] * 2
    assert actions(slowed(hot, 0), slowed(hot, 300)) == [Action.WATCH, Action.REPLACE]
    assert actions(slowed(hot, 0), slowed("none", 200), slowed(hot, 300)) == [
        Action.WATCH,
        Action.NONE,
        Action.WATCH,
    ]
    both = [slowed(reason, moment) for moment in (0, 150, 300) for reason in ("HW slowdown", hot)]
    assert actions(*both)[-2:] == [Action.REPLACE] * 2
    assert actions(slowed("SW power cap", 0), slowed("SW power cap", 9000)) == [Action.NONE] * 2


@given(st.permutations([xid(31, 0), xid(43, 1800), xid(13, 3600), slowed("HW slowdown", 5), xid(79, 7)]))
def test_the_order_of_a_log_does_not_matter(symptoms: list[Symptom]) -> None:
    def key(finding: Finding) -> float:
        return finding.symptom.moment_s or 0.0

    found = judge(symptoms)
    assert found == sorted(found, key=key)
    assert {(f.symptom, f.action) for f in found} == {
        (f.symptom, f.action) for f in judge(sorted(symptoms, key=lambda s: s.moment_s or 0.0))
    }


def test_a_card_needs_the_most_that_any_of_its_findings_needs() -> None:
    found = judge([xid(45), xid(31), xid(79, card="GPU 1"), slowed("idle", 1)])
    assert action_by_card(found) == {CARD: Action.RESTART, "GPU 1": Action.REPLACE}


def test_a_kernel_log_tells_of_xids_only() -> None:
    lines = [
        "[    0.000000] Linux version 6.8.0",
        "[ 1201.332211] NVRM: Xid (PCI:0000:3b:00): 31, pid=1234, name=python3, Ch 00000008, MMU Fault",
        "Nov 25 02:00:00 node kernel: NVRM: Xid (PCI:0000:AF:00): 79, GPU has fallen off the bus.",
        "NVRM: GPU at PCI:0000:3b:00: GPU-8f6d2c9a",
        "",
    ]
    assert read_symptoms(lines, "dmesg") == [
        xid(31, 1201.332211, "0000:3b:00"),
        xid(79, None, "0000:AF:00"),
    ]


@pytest.mark.parametrize(("record", "told"), [
    ({"xid": 79}, [(Kind.XID, 79)]),
    ({"ecc_uncorrected": 0}, []),
    ({"ecc_uncorrected": 2, "lost": True}, [(Kind.ECC_UNCORRECTED, 2), (Kind.LOST, 1)]),
    ({"remap_pending": True, "remap_failure": False}, [(Kind.REMAP_PENDING, 1)]),
    ({"throttle": ["HW slowdown", "idle"]}, [(Kind.THROTTLE, "HW slowdown"), (Kind.THROTTLE, "idle")]),
    ({"throttle": []}, [(Kind.THROTTLE, "none")]),
    ({"power_limit": "400 of 700 W"}, [(Kind.POWER_LIMIT, "400 of 700 W")]),
])  # fmt: skip
def test_json_lines_tell_what_they_hold(record: dict[str, object], told: list[tuple[Kind, object]]) -> None:
    line = json.dumps({"card": CARD, "time_s": 5, **record})
    assert read_symptoms([line], "log") == [Symptom(CARD, kind, value, 5) for kind, value in told]


@pytest.mark.parametrize(("line", "message"), [
    ('{"card": "GPU 0", "xid": 79', "log:2 isn't JSON"),
    ('{"xid": 79}', "needs a `card`"),
    ('{"card": "GPU 0", "time_s": "now", "xid": 79}', "`time_s` in seconds"),
    ('{"card": "GPU 0"}', "log:2 has no symptom"),
    ('{"card": "GPU 0", "xld": 79}', "unknown symptom 'xld'"),
    ('{"card": "GPU 0", "xid": -1}', "'xid' can't be -1"),
    ('{"card": "GPU 0", "xid": true}', "'xid' can't be True"),
    ('{"card": "GPU 0", "lost": 1}', "'lost' can't be 1"),
    ('{"card": "GPU 0", "throttle": "idle"}', "'throttle' can't be"),
])  # fmt: skip
def test_a_bad_record_is_an_error_with_its_line(line: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_symptoms(["", line], "log")
    assert message in str(caught.value)


def test_every_rule_has_a_meaning_and_does_something() -> None:
    assert all(action > Action.NONE and meaning for action, meaning in XIDS.values())
    for kind in Kind:
        (finding,) = judge([Symptom(CARD, kind, 1 if kind != Kind.THROTTLE else "HW slowdown")])
        assert finding.meaning and finding.action > Action.NONE
