#define MEMLANE_TABLE micro_kernels_portable
#define MEMLANE_SET_NAME "portable"
#define MEMLANE_VECTOR_BYTES 16
#include "kernels/cpu/micro_kernels.inc"
