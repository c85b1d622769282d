"""A seeded simulator of an etcd cluster as its clients see it, and the ways in which such a cluster could lie.

::

    machine.py    one sequential etcd store: what each request answers and leaves behind (read from etcd's server, not from `pekan.models`)
    traffic.py    random requests: every kind, every option
    cluster.py    clients, members that lag, outages, leases that expire, watches ──> Simulated(history, truth)
    mutations.py  histories that lie (or only look as if they did), one function each
    recording.py  a simulated history as a real record file

It shares no code with what it is used to judge: a misreading of etcd on either side shows as a disagreement.
"""
