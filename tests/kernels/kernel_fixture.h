#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/entries.h"
#include "kernels/exec.h"
#include "kernels/matmul.h"
#include "tests/reference/attention.h"
#include "tests/reference/random_values.h"

namespace memlane::testing {

/// All instruction sets; tests of those that this machine lacks are skipped.
inline std::vector<InstructionSet> instruction_sets() {
  std::vector<InstructionSet> sets;
  for (int set = 0; set <= static_cast<int>(InstructionSet::avx512_amx); ++set)
    sets.push_back(static_cast<InstructionSet>(set));
  return sets;
}

inline std::string set_name(const ::testing::TestParamInfo<InstructionSet>& info) {
  std::string name = name_of(info.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

/// A test of a kernel, run on every instruction set.
class KernelTest : public ::testing::TestWithParam<InstructionSet> {
 protected:
  void SetUp() override {
    if (GetParam() > detect_instruction_set()) GTEST_SKIP() << "this machine lacks " << name_of(GetParam());
  }
  CpuExec exec(std::size_t threads) const { return CpuExec(threads, GetParam()); }
};

#define MEMLANE_ON_EVERY_INSTRUCTION_SET(Fixture) \
  INSTANTIATE_TEST_SUITE_P(Cpu, Fixture, ::testing::ValuesIn(instruction_sets()), set_name)

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline PackedMatrix random_matrix(CpuExec& exec, reference::Random& random, std::size_t n, std::size_t k,
                                  WeightFormat format) {
  const std::vector<float> rows = random.floats(n * k);
  return PackedMatrix(exec, reinterpret_cast<const std::byte*>(rows.data()), DType::f32, n, k, format);
}

inline reference::Row row_of(const float* begin, std::size_t count) {
  return {begin, begin + count};
}

/// Elements of `dtype` as bytes, rounded from floats.
inline std::vector<std::byte> narrowed(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * size_of(dtype));
  with_type(dtype, [&](auto type) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      type = from_float<decltype(type)>(values[i]);
      std::memcpy(bytes.data() + i * sizeof type, &type, sizeof type);
    }
  });
  return bytes;
}

/// Entries of several kv heads in blocks, and the same for the reference (with the values that were stored, after
/// rounding). whole_keys: keys are whole numbers, so that scores with whole queries are exact and often equal.
class RandomEntries {
 public:
  RandomEntries(reference::Random& random, std::size_t kv_heads, std::size_t head_dim, std::vector<std::size_t> counts,
                DType dtype, double amplitude = 1, bool whole_keys = false)
      : counts_(std::move(counts)), truth_(kv_heads) {
    for (std::size_t head = 0; head < kv_heads; ++head) {
      for (const std::size_t count : counts_) {
        std::vector<float> keys = random.floats(count * head_dim, amplitude);
        for (float& key : keys) key = whole_keys ? std::round(key) : key;
        add_block(head, head_dim, dtype, keys, random.floats(count * head_dim));
      }
    }
  }

  /// [kv_heads, blocks]
  View<const EntryBlock, 2> blocks() const { return {blocks_.data(), {truth_.size(), counts_.size()}}; }
  const reference::Entries& truth(std::size_t head) const { return truth_[head]; }
  std::size_t count() const { return truth_.front().keys.size(); }

 private:
  void add_block(std::size_t head, std::size_t head_dim, DType dtype, const std::vector<float>& keys,
                 const std::vector<float>& values) {
    const std::size_t count = keys.size() / head_dim;
    Buffer<std::byte> panels = Buffer<std::byte>::zeroed(key_elements(count, head_dim, dtype) * size_of(dtype));
    with_type(dtype, [&](auto type) {
      write_keys(reinterpret_cast<decltype(type)*>(panels.data()), 0, keys.data(), head_dim, count, head_dim);
    });
    const std::vector<std::byte> rows = narrowed(values, dtype);
    Buffer<std::byte> stored(rows.size());
    if (!rows.empty()) std::memcpy(stored.data(), rows.data(), rows.size());
    blocks_.push_back({panels.data(), stored.data(), count, dtype});
    owned_.push_back(std::move(panels));
    owned_.push_back(std::move(stored));
    for (std::size_t i = 0; i < count; ++i) {
      truth_[head].add(reference::rounded(row_of(keys.data() + i * head_dim, head_dim), dtype),
                       reference::rounded(row_of(values.data() + i * head_dim, head_dim), dtype));
    }
  }

  std::vector<std::size_t> counts_;
  std::vector<reference::Entries> truth_;
  std::vector<EntryBlock> blocks_;
  std::vector<Buffer<std::byte>> owned_;
};

/// A partial in arrays of its own, so that two can be compared.
struct OwnedPartial {
  OwnedPartial(std::size_t token_count, std::size_t head_count, std::size_t size)
      : tokens(token_count),
        heads(head_count),
        head_dim(size),
        sum(tokens * heads * size, NAN),
        max(tokens * heads, NAN),
        weight(max) {}
  AttentionPartial view() {
    return {{sum.data(), {tokens, heads, head_dim}}, {max.data(), {tokens, heads}}, {weight.data(), {tokens, heads}}};
  }
  bool same_bits_as(const OwnedPartial& other) const {
    return same_bits(sum, other.sum) && same_bits(max, other.max) && same_bits(weight, other.weight);
  }
  std::size_t tokens, heads, head_dim;
  std::vector<float> sum, max, weight;
};

}  // namespace memlane::testing
