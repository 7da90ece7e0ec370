// Marks of small functions that host loops and device kernels share, so that both give the same bits.
#pragma once

#ifdef __CUDACC__
#define SSLFAST_INLINE __host__ __device__ __forceinline__
#define SSLFAST_UNROLL _Pragma("unroll")
#define SSLFAST_CALLS_WHAT_IT_IS_GIVEN _Pragma("nv_exec_check_disable")  // host code by the host, device code by the device
#else
#define SSLFAST_INLINE __attribute__((always_inline)) inline
#define SSLFAST_UNROLL _Pragma("GCC unroll 16")
#define SSLFAST_CALLS_WHAT_IT_IS_GIVEN
#endif
