#pragma once

#include "kernels/attention.h"
#include "kernels/cpu/key_tiles.h"

namespace memlane {

/// Attention of bfloat16 queries to bfloat16 entries by TileKernels (tile_kernels.h).

/// A worker's space for one item.
struct TiledWorkspace {
  TiledWorkspace(ScratchLayout layout, const QueryRows& rows);
  static TiledWorkspace of_worker(CpuExec& exec, std::size_t worker, const QueryRows& rows);

  std::size_t sum_stride;  // rows of `sum` are filled up to whole panels of 32
  TiledQueries queries;
  std::uint32_t *values, *seen_begin, *seen_end;
  float *sum, *max, *weight;
  std::size_t bytes;
};

/// The partial of one block for an item's rows, into the workspace.
void attend_block_tiled(const TileKernels& kernels, const QueryRows& rows, const QueryRows::Item& item,
                        const EntryBlock& block, float scale, Visibility visibility, const TiledWorkspace& work);

}  // namespace memlane
