"""Breaks things on purpose and compares what is left with the oracle (DESIGN sections 2 and 9).

`make faults` runs seeded schedules of faults for a while; `test_single.py` has each fault alone, `test_mixed.py` a few
schedules for every run of the tests.
"""
