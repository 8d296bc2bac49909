#define MEMLANE_TABLE micro_kernels_avx512_amx
#define MEMLANE_SET_NAME "avx512-amx"
#define MEMLANE_VECTOR_BYTES 64
#define MEMLANE_TILES
#include "kernels/cpu/micro_kernels.inc"
