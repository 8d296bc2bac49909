#define MEMLANE_TABLE micro_kernels_avx512_bf16
#define MEMLANE_SET_NAME "avx512-bf16"
#define MEMLANE_VECTOR_BYTES 64
#include "kernels/cpu/micro_kernels.inc"
