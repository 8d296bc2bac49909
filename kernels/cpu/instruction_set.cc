#if defined(MEMLANE_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <string_view>

#include "kernels/cpu/micro_kernels.h"
#include "kernels/error.h"

namespace memlane {

extern const MicroKernels micro_kernels_portable;
#if defined(__x86_64__)
extern const MicroKernels micro_kernels_avx2;
extern const MicroKernels micro_kernels_avx512;
extern const MicroKernels micro_kernels_avx512_bf16;
#if defined(MEMLANE_AMX)
extern const MicroKernels micro_kernels_avx512_amx;
#endif
#endif

namespace {

constexpr InstructionSet kAll[] = {InstructionSet::portable, InstructionSet::avx2, InstructionSet::avx512,
                                   InstructionSet::avx512_bf16, InstructionSet::avx512_amx};

/// Whether this process may use AMX: the processor has tiles and their products of bfloat16 and of int8, the system
/// saves them between threads, and permits them to this process, all of whose threads get them then.
bool may_use_tiles() {
#if defined(MEMLANE_AMX)
  constexpr unsigned kBf16 = 1U << 22, kTile = 1U << 24, kInt8 = 1U << 25, kXsaveEnabled = 1U << 27;
  constexpr unsigned kTileState = 3U << 17;  // shapes and contents
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kXsaveEnabled) == 0) return false;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kBf16) == 0 || (d & kTile) == 0 || (d & kInt8) == 0)
    return false;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & kTileState) != kTileState) return false;
  constexpr long kRequestPermission = 0x1023, kTileContents = 18;  // ARCH_REQ_XCOMP_PERM of Linux 5.16
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileContents) == 0;
#else
  return false;
#endif
}

bool machine_has(InstructionSet set) {
#if defined(__x86_64__)
  switch (set) {
    case InstructionSet::portable:
      return true;
    case InstructionSet::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case InstructionSet::avx512:
      return machine_has(InstructionSet::avx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq");
    case InstructionSet::avx512_bf16:
      return machine_has(InstructionSet::avx512) && __builtin_cpu_supports("avx512bf16") &&
             __builtin_cpu_supports("avx512vnni");
    case InstructionSet::avx512_amx: {
      static const bool has_tiles = machine_has(InstructionSet::avx512_bf16) && may_use_tiles();
      return has_tiles;
    }
  }
#endif
  return set == InstructionSet::portable;
}

}  // namespace

InstructionSet detect_instruction_set() {
  InstructionSet best = InstructionSet::portable;
  for (const InstructionSet set : kAll) {
    if (machine_has(set)) best = set;
  }
  return best;
}

const MicroKernels& micro_kernels(InstructionSet set) {
  if (!machine_has(set)) {
    input_error("instruction set {}: this machine has only {}; leave it out to use the best there is", name_of(set),
                name_of(detect_instruction_set()));
  }
#if defined(__x86_64__)
  switch (set) {
    case InstructionSet::avx2:
      return micro_kernels_avx2;
    case InstructionSet::avx512:
      return micro_kernels_avx512;
    case InstructionSet::avx512_bf16:
      return micro_kernels_avx512_bf16;
    case InstructionSet::avx512_amx:
#if defined(MEMLANE_AMX)
      return micro_kernels_avx512_amx;
#endif
    case InstructionSet::portable:
      break;
  }
#endif
  return micro_kernels_portable;
}

const char* name_of(InstructionSet set) {
  switch (set) {
    case InstructionSet::portable:
      return "portable";
    case InstructionSet::avx2:
      return "avx2";
    case InstructionSet::avx512:
      return "avx512";
    case InstructionSet::avx512_bf16:
      return "avx512-bf16";
    case InstructionSet::avx512_amx:
      return "avx512-amx";
  }
  return "unknown";
}

InstructionSet instruction_set_named(const char* name) {
  for (const InstructionSet set : kAll) {
    if (std::string_view(name) == name_of(set)) return set;
  }
  input_error("instruction set {}: expected portable, avx2, avx512, avx512-bf16 or avx512-amx", name);
}

}  // namespace memlane
