"""The chunks of a segmentation computed by other processes and machines, as Dask tasks.

`client` sends chunks to workers and `tasks` watches them; `worker` runs in each worker; `local`
starts workers on this machine. All state lies in the parts: a process that dies loses only the
chunks it was computing.
"""
