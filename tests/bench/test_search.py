"""The search finds the rate at which a made-up server breaks, and says what it can't tell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgpu.artifacts.manifest import Validity
from hgpu.artifacts.payloads.load import LoadPoint
from hgpu.bench.arrivals import Load
from hgpu.bench.confidence import Verdict, requests_needed, verdict
from hgpu.bench.draft import search_validity
from hgpu.bench.search import Search, SearchOptions
from hgpu.core.errors import InputError
from hgpu.core.slo import Objective, Slo

SLO = Slo(ttft=Objective(1.0, 90.0))


class Server:
    """Misses 2 % of its requests up to a rate, and 40 % beyond it; some looks are spoiled."""

    def __init__(self, breaks_rps: float, spoiled: tuple[int, ...] = (), near: float = 0.02) -> None:
        self.breaks_rps, self.spoiled, self.near = breaks_rps, spoiled, near
        self.looks: list[Load] = []

    def measure(self, number: int, load: Load) -> LoadPoint:
        assert number == len(self.looks)
        self.looks.append(load)
        requests = max(1, round(load.rate_rps * load.duration_s))
        share = self.near if load.rate_rps <= self.breaks_rps else 0.4
        kept = 1 - round(share * requests) / requests
        reasons = ["late"] if number in self.spoiled else []
        nothing = dict.fromkeys(("ttft_s", "ttft_from_send_s", "tpot_s", "itl_s", "e2e_s", "concurrency"))
        zero = ("input_tokens", "output_tokens", "output_tok_per_s", "harness_lag_p50_s", "harness_lag_p99_s")
        return LoadPoint(
            name=load.name,
            arrivals=load.arrivals,
            target_rps=load.rate_rps,
            seed=load.seed,
            duration_s=load.duration_s,
            requests=requests,
            errors=0,
            error_kinds={},
            achieved_rps=load.rate_rps,
            attainment={"ttft": kept, "all": kept},
            goodput_rps=load.rate_rps * kept,
            validity=Validity(valid=not reasons, reasons=reasons),
            **nothing,
            **dict.fromkeys(zero, 0),
        )


def searched(server: Server, **options: float) -> Search:
    looked = Search(SearchOptions(SLO, **options), server.measure, 0.01)
    looked.run()
    return looked


def test_a_start_of_which_nothing_can_be_told_is_refused_with_one_that_does() -> None:
    """There would be no point at all to save."""
    with pytest.raises(InputError, match="can't tell anything of 1 requests/s") as refused:
        SearchOptions(SLO, start_rps=1.0, duration_s=3.0, max_duration_s=6.0)
    start_rps = float(refused.value.fix.split("--start ")[1].split()[0])
    looked = searched(Server(1000.0), start_rps=start_rps, duration_s=3.0, max_duration_s=6.0, max_rps=20.0)
    assert looked.points


@given(st.floats(0.5, 3000), st.floats(0.5, 3000))
def test_the_answer_is_next_to_where_the_server_breaks(breaks_rps: float, start_rps: float) -> None:
    answer = searched(Server(breaks_rps), start_rps=start_rps).answer
    assert answer.highest_rps <= breaks_rps < answer.failed_rps
    assert answer.failed_rps / answer.highest_rps <= 1.051 and answer.undecided_rps == []


def test_a_server_that_never_breaks_is_looked_at_up_to_the_end() -> None:
    answer = searched(Server(1e9), max_rps=100.0).answer
    assert (answer.highest_rps, answer.failed_rps) == (100.0, None)


def test_a_server_that_keeps_nothing_has_no_rate() -> None:
    looked = searched(Server(0.0), start_rps=4.0)
    assert looked.answer.highest_rps == 0 and len(looked.points) < 20 and not looked.undecided


def test_what_misses_as_much_as_it_may_is_undecided() -> None:
    looked = searched(Server(1e9, near=0.1), start_rps=2.0, duration_s=30.0, max_duration_s=60.0)
    assert looked.answer.highest_rps == 0 and 2.0 in looked.answer.undecided_rps


def test_a_look_that_the_harness_spoiled_is_taken_again() -> None:
    server = Server(8.0, spoiled=(1,))
    looked = searched(server)
    assert looked.answer.highest_rps <= 8.0 < looked.answer.failed_rps
    assert server.looks[1].rate_rps == server.looks[2].rate_rps and search_validity(looked).valid
    spoiled = searched(Server(8.0, spoiled=tuple(range(2, 99))))
    assert not search_validity(spoiled).valid and spoiled.answer.highest_rps == 1.0


def test_a_server_that_is_gone_ends_and_voids_the_search() -> None:
    server = Server(1e9)

    def measure(number: int, load: Load) -> LoadPoint:
        point = server.measure(number, load)
        if load.rate_rps < 20:
            return point
        gone = Validity(valid=False, reasons=["connect"])
        return point.model_copy(update={"errors": point.requests, "validity": gone})

    looked = Search(SearchOptions(SLO), measure, 0.01)
    assert looked.run().highest_rps == 16 and looked.points[-1].name == "32 rps"
    assert search_validity(looked).reasons == ["32 rps: connect"]


def test_seeds_and_points_are_the_same_again() -> None:
    first, second = Server(13.0), Server(13.0)
    searched(first), searched(second)
    assert first.looks == second.looks and len({load.seed for load in first.looks}) == len(first.looks)


@pytest.mark.parametrize("options", [{"start_rps": 5.0, "max_rps": 2.0}, {"precision": 0.0}])
def test_a_search_that_could_not_end_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        SearchOptions(SLO, **options)
    with pytest.raises(InputError, match="objective"):
        SearchOptions(Slo())
    with pytest.raises(InputError, match="unknown arrival process"):
        SearchOptions(SLO, arrivals="closed")


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_a_verdict_is_wrong_as_seldom_as_it_says(share: float) -> None:
    drawn = np.random.default_rng(0).binomial(300, share, 4000)
    found = [verdict(int(misses), 300, 90.0) for misses in drawn]
    parts = {kind: found.count(kind) / len(found) for kind in Verdict}
    if share == 0.1:
        assert parts[Verdict.PASS] < 0.06 and parts[Verdict.FAIL] < 0.06
    else:
        assert parts[Verdict.PASS if share < 0.1 else Verdict.FAIL] > 0.9


def test_so_many_clean_requests_pass_and_one_less_does_not() -> None:
    needed = requests_needed(Slo(tpot=Objective(1.0, 99.0)))
    assert needed == 299
    assert verdict(0, needed, 99.0) is Verdict.PASS and verdict(0, needed - 1, 99.0) is Verdict.UNDECIDED
