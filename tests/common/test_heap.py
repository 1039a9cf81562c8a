"""Memory that is given back once many objects are gone."""

import subprocess
import sys

from fs_common.heap import MANY, Watermark

PEAK = 100_000
_SCRIPT = f"""
import gc
from fs_common.heap import freeze, give_back

def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

freeze()
nodes = {{number: [(number, str(number), float(number))] for number in range({PEAK})}}
lasting = list(nodes.values())[::20_000]
most = resident_bytes()
nodes.clear()
give_back()
print(most - resident_bytes())
"""


def test_it_is_said_once_when_most_are_gone_and_no_more_go() -> None:
    nodes = Watermark()
    assert [nodes.passed(count) for count in (10, 10 * MANY, 5 * MANY, MANY)] == [False] * 4, "they still go"
    assert nodes.passed(MANY)
    assert not nodes.passed(MANY), "once"
    assert [nodes.passed(count) for count in (8 * MANY, 3 * MANY, 3 * MANY)] == [False] * 3, "too many are left"
    assert [nodes.passed(count) for count in (MANY, MANY)] == [False, True]


def test_a_few_are_not_worth_it() -> None:
    nodes = Watermark()
    assert [nodes.passed(count) for count in (MANY - 1, 0, 0, 0)] == [False] * 4


def test_the_system_gets_what_many_objects_took() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) > PEAK * 100
