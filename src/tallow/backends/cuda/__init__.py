"""The CUDA backend: CuPy's arrays, kernels compiled by NVRTC when they are first used, and cuBLASLt.

What has no kernel runs its reference implementation on CuPy's arrays. This package is imported where there is no CuPy,
to compile the kernels; ``operations`` registers them.
"""
