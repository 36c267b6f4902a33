// Macros of headers that CPU and GPU code both include.
#pragma once

#ifdef __CUDACC__
#define REFER_HD __host__ __device__ __forceinline__
#else
#define REFER_HD inline
#endif
