"""Random partition models and loads, and the model's equations once more, one split at a time."""

from hypothesis import strategies as st

from hgpu.core.partition import Load, OperatorClass, Split, Work
from hgpu.latency.lattice import Lattice
from hgpu.latency.partition import PartitionModel, Roof, Roofs, flat
from hgpu.latency.partition_choice import ChoiceOptions, Goal

LATTICES = [Lattice(132, 8, 8), Lattice(108, 4, 2), Lattice(188, 8, 8), Lattice(4, 1, 1), Lattice(2, 1, 1)]


def roofs() -> st.SearchStrategy[Roofs]:
    def roof(low: float, high: float) -> st.SearchStrategy[Roof]:
        rates = st.floats(low, high)
        return st.one_of(
            st.builds(Roof, rates, st.floats(0.02, 1.0), st.floats(0.0, 1.0)), st.builds(flat, rates)
        )

    return st.builds(Roofs, roof(1e14, 1e15), roof(1e12, 5e12))


def models() -> st.SearchStrategy[PartitionModel]:
    kinds = st.fixed_dictionaries({kind: roofs() for kind in OperatorClass})
    return st.builds(PartitionModel, kinds, st.floats(0.0, 1.0), st.sampled_from([0.0, 1e-3]))


def loads() -> st.SearchStrategy[Load]:
    def work(flops: float, amount: float) -> st.SearchStrategy[Work]:
        return st.builds(Work, st.floats(flops / 100, flops), st.floats(amount / 100, amount))

    return st.builds(Load, work(1e14, 2e10), work(2e13, 1e10), work(5e12, 2e10), work(1e12, 5e10))


def options() -> st.SearchStrategy[ChoiceOptions]:
    slack, objective = st.floats(1.0, 2.0), st.one_of(st.none(), st.floats(1e-3, 0.5))
    return st.builds(ChoiceOptions, slack, slack, objective, objective)


def goals() -> st.SearchStrategy[Goal]:
    return st.sampled_from(list(Goal))


def lattices() -> st.SearchStrategy[Lattice]:
    return st.sampled_from(LATTICES)


def reference_s(model: PartitionModel, load: Load, split: Split) -> tuple[float, float]:
    """The seconds of both phases under one split, straight from the equations in docs/pd.md."""

    def rate(roof: Roof, units: int) -> float:
        share = units / (split.prefill_units + split.decode_units)
        if share <= roof.saturation:
            return roof.per_s * share
        return roof.per_s * (roof.saturation + roof.decay * (share - roof.saturation))

    def seconds(kind: OperatorClass, work: Work, units: int, bandwidth: float = 1.0) -> float:
        roofs = model.roofs[kind]
        candidates = [0.0]
        if roofs.compute is not None:
            candidates.append(work.flops / rate(roofs.compute, units))
        if roofs.memory is not None:
            candidates.append(work.bytes / (bandwidth * rate(roofs.memory, units)))
        return max(candidates)

    dense = seconds(OperatorClass.PREFILL_DENSE, load.prefill_dense, split.prefill_units)
    attention = seconds(OperatorClass.PREFILL_ATTENTION, load.prefill_attention, split.prefill_units)
    p_attn = attention / (dense + attention)
    m_d, m_1, m_2 = (w.bytes for w in (load.decode_attention, load.prefill_attention, load.prefill_dense))
    fair = p_attn * m_d / (m_d + m_1) + (1 - p_attn) * m_d / (m_d + m_2)
    left = (1 - model.contention) + model.contention * fair
    decode = seconds(OperatorClass.DECODE_DENSE, load.decode_dense, split.decode_units)
    decode += seconds(OperatorClass.DECODE_ATTENTION, load.decode_attention, split.decode_units, left)
    return model.overhead_s + dense + attention, model.overhead_s + decode
