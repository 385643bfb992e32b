"""How tests compile programs, in their own processes and in those that commands run in."""

# Most of a test's time is compilation, which LLVM's optimisations make half as long again.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
