#include <string_view>

#include "kernels/cpu/micro_kernels.h"
#include "kernels/error.h"

namespace memlane {

extern const MicroKernels micro_kernels_portable;
#if defined(__x86_64__)
extern const MicroKernels micro_kernels_avx2;
extern const MicroKernels micro_kernels_avx512;
extern const MicroKernels micro_kernels_avx512_bf16;
#endif

namespace {

constexpr InstructionSet kAll[] = {InstructionSet::portable, InstructionSet::avx2, InstructionSet::avx512,
                                   InstructionSet::avx512_bf16};

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
      return machine_has(InstructionSet::avx512) && __builtin_cpu_supports("avx512bf16");
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
  }
  return "unknown";
}

InstructionSet instruction_set_named(const char* name) {
  for (const InstructionSet set : kAll) {
    if (std::string_view(name) == name_of(set)) return set;
  }
  input_error("instruction set {}: expected portable, avx2, avx512 or avx512-bf16", name);
}

}  // namespace memlane
