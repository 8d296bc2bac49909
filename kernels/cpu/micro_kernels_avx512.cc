#define MEMLANE_TABLE micro_kernels_avx512
#define MEMLANE_SET_NAME "avx512"
#define MEMLANE_VECTOR_BYTES 64
#include "kernels/cpu/micro_kernels.inc"
