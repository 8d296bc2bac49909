#pragma once

#include <cstddef>

#include "runtime/config_keys.h"
#include "runtime/rope_scaling.h"

namespace memlane {

/// How the two kinds of layers rotate.
struct RopeOfKinds {
  RopeScaling plain, memory;
};

/// Reads rope_theta, rope_scaling, transformers 5's rope_parameters and original_max_position_embeddings of a config.
///
/// Types are transformers' (default, linear, dynamic, yarn, llama3, longrope), those of the YaRN code (dynamic-yarn,
/// finetuned included), vLLM's ntk and dynamic with alpha (a static NTK factor), the old name su, and the names of
/// RopeMethod. An explicit factor wins; where YaRN or longrope has none (or null) it is max_position_embeddings /
/// original_max_position_embeddings. rope_parameters may be nested: full_attention is then of the plain layers,
/// memory_attention of the memory layers (as full_attention if absent).
/// Throws InputError, naming the key, for a type or key that is not known, or a value outside its range.
RopeOfKinds read_rope(const ConfigKeys& config, std::size_t head_dim, std::size_t max_position_embeddings);

}  // namespace memlane
