// Marks of small functions that host loops and device kernels share, so that both give the same bits.
#pragma once

#ifdef __CUDACC__
#define SSLFAST_INLINE __host__ __device__ __forceinline__
#define SSLFAST_UNROLL _Pragma("unroll")
#else
#define SSLFAST_INLINE __attribute__((always_inline)) inline
#define SSLFAST_UNROLL _Pragma("GCC unroll 16")
#endif
