"""How tests compile programs, in their own processes and in those that commands run in.

All do alike: a program that one process has compiled is read by the others of a call of pytest, but
only where their flags are the same.
"""

# Most of a test's time is compilation, which LLVM's optimisations make half as long again. XLA
# would end the process when busy cores let one of several devices wait 40 s for the others.
QUICK = (
    "--xla_backend_optimization_level=0"
    " --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_collective_call_terminate_timeout_seconds=3600"
)


def flags(*, devices: int) -> str:
    """Returns XLA's flags for a process that has some virtual devices."""
    return f"--xla_force_host_platform_device_count={devices} {QUICK}"
