"""What a member's files hold, as far as faults have to know: where a write-ahead log ends, which pages of a database are in use.

::

    data/member/wal/SSSS-IIII.wal     `wal`       records in frames, then zeros to the preallocated end
    data/member/snap/db               `bbolt`     pages; the newest valid one of two metas says which are in use
    whole directories                 `copies`    with holes as holes

Read only, and only from files that nobody writes meanwhile. Where they are: `files`.
"""
