from math import inf

import pytest
from runtime.control.engine_metrics import EngineMetrics

from hgpu.core.errors import EngineError, InputError, UnknownName
from hgpu.runtime.control.scrape import parse_metrics, passed
from hgpu.runtime.control.sources import Source, sources_of


def test_the_metrics_of_vllm_are_read_and_summed_over_engines() -> None:
    made = EngineMetrics(engines=2)
    made.in_flight(3, 1)
    made.end(4, 600, 30)
    made.end(2, 60, 300, engine=1)
    scrape = parse_metrics(made.text)
    assert (scrape.ended, scrape.running, scrape.waiting) == (6.0, 6.0, 2.0)
    assert scrape.inputs.tokens == 4 * 600 + 2 * 60 and scrape.inputs.edges[-1] == inf
    inputs = dict(zip(scrape.inputs.edges, scrape.inputs.counts, strict=True))
    assert inputs[1000.0] == 4 and inputs[100.0] == 2 and sum(inputs.values()) == 6
    outputs = dict(zip(scrape.outputs.edges, scrape.outputs.counts, strict=True))
    assert outputs[50.0] == 4 and outputs[500.0] == 2


def test_what_passed_between_two_scrapes() -> None:
    made = EngineMetrics()
    made.end(5, 600, 30)
    made.in_flight(2, 0)
    before = parse_metrics(made.text)
    made.end(3, 60, 30)
    made.in_flight(4, 1)
    between = passed(before, parse_metrics(made.text))
    assert (between.arrived, between.ended, between.waiting) == (6.0, 3.0, 1.0)
    assert between.inputs.requests == 3 and between.inputs.tokens == 180


def test_an_engine_that_was_started_anew_counts_from_zero() -> None:
    old, new = EngineMetrics(), EngineMetrics()
    old.end(50, 600, 30)
    old.in_flight(9, 9)
    new.end(2, 60, 30)
    new.in_flight(1, 0)
    between = passed(parse_metrics(old.text), parse_metrics(new.text))
    assert (between.arrived, between.ended, between.inputs.requests) == (3.0, 2.0, 2.0)


@pytest.mark.parametrize("text", ["", "<html>no metrics here</html>", "vllm:num_requests_running 1\n"])
def test_what_lacks_a_metric_is_refused(text: str) -> None:
    with pytest.raises(EngineError):
        parse_metrics(text)


def test_a_url_says_whose_it_is_where_there_are_several_pools() -> None:
    words = ["l4=http://10.0.0.7:8000", "a100=http://engines.default.svc:8000/metrics"]
    assert sources_of(words, ["l4", "a100"]) == (
        Source("l4", "http://10.0.0.7:8000/metrics"),
        Source("a100", "http://engines.default.svc:8000/metrics"),
    )
    assert sources_of(["http://h:1/m?a=b"], ["l4"]) == (Source("l4", "http://h:1/m?a=b"),)
    assert sources_of(["l4=http://h:1/m?a=b"], ["l4"]) == (Source("l4", "http://h:1/m?a=b"),)
    with pytest.raises(InputError):
        sources_of(["http://10.0.0.7:8000", *words], ["l4", "a100"])
    with pytest.raises(UnknownName):
        sources_of(["t4=http://10.0.0.7:8000"], ["l4"])
    with pytest.raises(InputError, match="a100"):
        sources_of(words[:1], ["l4", "a100"])
    with pytest.raises(InputError):
        sources_of(["l4=10.0.0.7:8000"], ["l4"])
