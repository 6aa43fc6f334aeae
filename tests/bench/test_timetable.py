import asyncio
import time

import pytest

from hgpu.bench import timetable


@pytest.mark.parametrize("kernel", [True, False])
def test_calls_come_in_order_and_never_early(kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel:
        monkeypatch.setattr(timetable, "_open_timer", lambda: None)
    called: list[tuple[str, float]] = []

    async def main() -> None:
        over = asyncio.Event()
        table = timetable.Timetable(asyncio.get_running_loop())
        begun_s = time.monotonic()

        def note(name: str) -> None:
            called.append((name, time.monotonic() - begun_s))
            if name == "b":  # due before c, and added while calls run
                table.at(begun_s + 0.03, lambda: note("between"))
            if name == "c":
                over.set()

        for name, delay_s in (("c", 0.05), ("past", -1.0), ("b", 0.02), ("a", 0.01)):
            table.at(begun_s + delay_s, lambda name=name: note(name))
        assert not called
        await asyncio.wait_for(over.wait(), 10)
        table.at(time.monotonic() + 0.01, lambda: note("after its end"))
        table.close()
        await asyncio.sleep(0.03)

    asyncio.run(main())
    assert [name for name, _ in called] == ["past", "a", "b", "between", "c"]
    assert all(at_s >= due_s for (_, at_s), due_s in zip(called, (0, 0.01, 0.02, 0.03, 0.05), strict=True))
