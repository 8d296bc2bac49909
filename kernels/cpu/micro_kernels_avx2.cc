#define MEMLANE_TABLE micro_kernels_avx2
#define MEMLANE_SET_NAME "avx2"
#define MEMLANE_VECTOR_BYTES 32
#include "kernels/cpu/micro_kernels.inc"
