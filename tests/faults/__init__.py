"""Breaks things on purpose and compares what is left with the oracle (DESIGN sections 2 and 9).

`make faults` (`__main__.py`) does each fault alone and then seeded schedules of many for a while; `test_mixed.py` has a
few schedules for every run of the tests.  Faults are entered into `catalogue.FAULTS` by the modules `*_faults.py`,
`clusters.py`'s and `guarded.py`'s deployments among them, and what is in no mix into `scenes.SCENES`.
"""
