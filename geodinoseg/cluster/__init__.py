"""The chunks of a segmentation on other processes and machines, as Dask tasks.

`tasks` is what workers do, `dask_workers` and `pool` what the one who asked does, `local` starts
processes.
State lives in the parts: whatever dies costs only the chunks that it had in hand.
"""
