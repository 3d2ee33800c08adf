"""How often a call of compiled code allocates."""

from numba.core.runtime import _nrt_python, rtsys


def allocations(function, *arguments):
    """(arrays' memory, records of it) that a call allocates; a record for each array that is its argument is one."""
    _nrt_python.memsys_enable_stats()
    try:
        before = rtsys.get_allocation_stats()
        function(*arguments)
        after = rtsys.get_allocation_stats()
    finally:
        _nrt_python.memsys_disable_stats()
    return after.alloc - before.alloc, after.mi_alloc - before.mi_alloc
