#include "kernels/feed_forward.h"

#include "kernels/cpu/quantised_matmul.h"
#include "kernels/cpu/tile_matmul.h"
#include "kernels/layers.h"

namespace memlane {

void feed_forward(CpuExec& exec, const InputRows& a, const PackedMatrix& gate, const PackedMatrix& up,
                  const PackedMatrix& down, View<float, 2> gates, View<float, 2> ups, View<float, 2> space,
                  View<float, 2> x) {
  MEMLANE_EXPECTS(a.extent(0) == x.extent(0) && a.extent(1) == x.extent(1) && space.extents() == x.extents());
  MEMLANE_EXPECTS(a.data() != x.data() && space.data() != x.data());
  MEMLANE_EXPECTS(a.extent(1) == gate.k() && a.extent(1) == up.k() && gate.n() == up.n() && gate.n() == down.k() &&
                  down.n() == x.extent(1));
  MEMLANE_EXPECTS(gates.extents() == ups.extents() && gates.extent(0) == a.extent(0) && gates.extent(1) == gate.n());
  if (x.extent(0) == 0) return;
  const auto all = [&](const auto& of_format) {
    return of_format(gate.format()) && of_format(up.format()) && of_format(down.format());
  };
  if (exec.micro().tiles != nullptr && all([](WeightFormat format) { return format == WeightFormat::bf16; }) &&
      feeds_forward_by_tiles(exec, gate)) {
    const StageScope stage(exec.stage_clock(), Stage::matmul);
    return feed_forward_by_tiles(exec, a, gate, up, down, space, x);
  }
  if (all(is_quantised)) {
    const StageScope stage(exec.stage_clock(), Stage::matmul);
    return quantised_feed_forward(exec, a, gate, up, down, gates, x);
  }
  matmul(exec, a, {{gate, gates}, {up, ups}});
  swiglu(exec, gates, ups, gates);
  matmul_add(exec, gates, down, x, space);
}

}  // namespace memlane
