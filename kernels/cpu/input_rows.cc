#include "kernels/input_rows.h"

#include "kernels/layers.h"

namespace memlane {

const float* InputRows::row(const MicroKernels& micro, std::size_t index, float* space) const {
  const std::size_t width = rows_.extent(1);
  if (const auto* from = std::get_if<Normed>(&source_)) {
    micro.rms_norm_row(from->x.data() + index * width, from->weight.data(), width, from->epsilon, space);
    return space;
  }
  if (const auto* from = std::get_if<Finished>(&source_)) {
    finish_token(from->partial, index, space);
    return space;
  }
  return rows_.data() + index * width;
}

View<const float, 2> InputRows::all(CpuExec& exec) const {
  if (const auto* from = std::get_if<Normed>(&source_)) {
    rms_norm(exec, from->x, from->weight, from->epsilon, from->space);
  } else if (const auto* partial = std::get_if<Finished>(&source_)) {
    finish(exec, partial->partial, partial->space.reshape<3>(partial->partial.sum.extents()));
  }
  return rows_;
}

InputRows normed(CpuExec&, View<const float, 2> x, View<const float, 1> weight, float epsilon, View<float, 2> space) {
  MEMLANE_EXPECTS(x.extents() == space.extents() && weight.extent(0) == x.extent(1) && x.data() != space.data());
  return {space, InputRows::Normed{x, weight, epsilon, space}};
}

InputRows finished(CpuExec&, AttentionPartial partial, View<float, 2> space) {
  const auto [tokens, heads, head_dim] = partial.sum.extents();
  MEMLANE_EXPECTS(space.extent(0) == tokens && space.extent(1) == heads * head_dim);
  return {space, InputRows::Finished{partial, space}};
}

}  // namespace memlane
