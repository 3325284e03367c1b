"""Builds, checks and measures everything on a machine with a GPU that may be there for minutes only: ``make gpu``.

``stages`` says what is done in which order, ``runner`` does it and keeps what it leaves, ``ops`` compares every op with
the CPU (``compare`` says how, ``by_warpgroups`` has the cases of Hopper's own product), ``outcomes`` writes test
results as they come, ``profiled`` launches what is looked at with a profiler.
"""
