#pragma once

#include <cstdint>
#include <memory>

#include "kernels/exec.h"
#include "memory/document_memory.h"
#include "runtime/model.h"

namespace memlane {

/// A model of any shape with random weights: for measuring speed, without a checkpoint.
struct RandomModel {
  Buffer<std::byte> embedding_bytes;
  std::unique_ptr<Tensor> embedding;
  Model model;
};

/// Fills and packs with all threads.
std::unique_ptr<RandomModel> random_model(CpuExec& exec, const ModelConfig& config, Precision precision);

/// Random entries of memory, as many as a document may have: for measuring speed, without reading one.
class RandomMemory {
 public:
  /// entries: a multiple of segment_entries, or 0.
  RandomMemory(CpuExec& exec, const EntryShape& shape, std::size_t entries, std::size_t segment_entries);

  /// A document of the first `entries` entries, which this keeps alive: a multiple of the segment's.
  DocumentMemory document(const Lookup& lookup, std::size_t entries) const;

  static std::size_t bytes(const EntryShape& shape, std::size_t entries, std::size_t segment_entries);

 private:
  EntryShape shape_;
  std::size_t segment_entries_;
  Buffer<std::byte> bytes_;
};

}  // namespace memlane
