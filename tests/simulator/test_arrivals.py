from memplan.facts import MIB
from memplan.simulator.arrivals import Device


def test_a_device_reports_what_is_there_and_the_most_that_was() -> None:
    device = Device()
    first = device.take(30 * MIB)
    second = device.take(100)
    device.give(first)
    assert device.allocated == 512
    assert device.peak == 30 * MIB + 512
    device.give(second)
    assert device.allocated == 0
    assert device.pool.reserved == 32 * MIB


def test_a_device_takes_freed_blocks_again() -> None:
    device = Device()
    device.give(device.take(36 * MIB))
    for _ in range(4):
        device.take(9 * MIB)
    assert device.pool.reserved == 36 * MIB
