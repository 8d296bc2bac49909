#include "kernels/feed_forward.h"

#include "kernels/cpu/tile_matmul.h"
#include "kernels/layers.h"

namespace memlane {

void feed_forward(CpuExec& exec, View<const float, 2> a, const PackedMatrix& gate, const PackedMatrix& up,
                  const PackedMatrix& down, View<float, 2> gates, View<float, 2> ups, View<float, 2> out) {
  MEMLANE_EXPECTS(a.extents() == out.extents());
  MEMLANE_EXPECTS(a.extent(1) == gate.k() && a.extent(1) == up.k() && gate.n() == up.n() && gate.n() == down.k() &&
                  down.n() == out.extent(1));
  if (a.extent(0) == 0) return;
  const auto by_tiles = [](const PackedMatrix& w) { return w.format() == WeightFormat::bf16; };
  if (exec.micro().tiles != nullptr && by_tiles(gate) && by_tiles(up) && by_tiles(down) &&
      feeds_forward_by_tiles(gate)) {
    const StageScope stage(exec.stage_clock(), Stage::matmul);
    return feed_forward_by_tiles(exec, a, gate, up, down, out);
  }
  matmul(exec, a, {{gate, gates}, {up, ups}});
  swiglu(exec, gates, ups, gates);
  matmul(exec, gates, down, out);
}

}  // namespace memlane
