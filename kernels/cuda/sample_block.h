#pragma once

// Choosing the next token from logits (kernels/sampling.h), by one block of threads. Nothing is sorted: the candidate
// with which a sum of weights, in their order, exceeds some number is found by adding up weights in 256 bins, taking
// the bin in which it lies, and doing the same with the candidates of that bin alone. Weights are whole numbers, so it
// does not matter in which order threads add. Runs on the GPU (sampling.cu) and emulated in tests.

#include "kernels/cuda/warp.h"
#include "kernels/sampling.h"

namespace memlane::cuda {

/// A call of choose_token.
struct SampleTask {
  const float* logits = nullptr;  // [vocab]
  std::uint32_t vocab = 0;
  float temperature = 0;                   // 0: greedy
  std::uint32_t top_k = 0;                 // below vocab; 0: all
  std::uint64_t top_p = 0;                 // in units of 2^-64; 0: all
  float repetition_penalty = 1;            // 1: none
  const std::uint32_t* seen = nullptr;     // a set of tokens
  const std::uint64_t* uniform = nullptr;  // [1], in units of 2^-64
  std::uint64_t* lists = nullptr;          // scratch [2][vocab]
  std::int32_t* chosen = nullptr;          // [1]
};

struct SampleMemory {
  static constexpr int kBins = 256;
  std::uint64_t bins[kBins];            // the weight in each
  std::uint64_t first[32], behind[32];  // of what each warp has seen: the first of the order, the last, inverted
  std::uint32_t listed;                 // candidates listed so far
};

/// Where a candidate stands: a smaller number for a greater score, and of equal scores for a smaller id. What is no
/// number comes before all others.
MEMLANE_KERNEL std::uint64_t order_of(float score, std::uint32_t id) {
  if (score != score) return 0;
  return static_cast<std::uint64_t>(~ordered(score)) << 32 | id;
}

MEMLANE_KERNEL float score_of(std::uint64_t order) {
  return unordered(~static_cast<std::uint32_t>(order >> 32));
}

template <int Warps, class Warp>
class TokenSearch {
 public:
  template <class T>
  using Lanes = typename Warp::template Lanes<T>;

  MEMLANE_KERNEL TokenSearch(Warp& warp, const SampleTask& task, SampleMemory& memory)
      : warp_(warp), task_(task), memory_(memory) {}

  MEMLANE_KERNEL std::int32_t run() {
    const auto all = [this](std::uint32_t id) { return order_at(id); };
    Range range = range_of(all, task_.vocab);
    if (range.first >> 32 == 0) return kNotANumber;
    if (task_.temperature == 0) return static_cast<std::int32_t>(range.first & 0xffffffffU);
    best_ = score_of(range.first);
    if (task_.top_k > 0) {
      const auto one = [](std::uint64_t) { return std::uint64_t{1}; };
      range.last = first_beyond(range, score_of(range.first) - score_of(range.last), one,
                                [this](std::uint64_t) { return std::uint64_t{task_.top_k - 1}; });
    }
    const auto weight = [this](std::uint64_t order) { return weight_of(order); };
    if (task_.top_p > 0) {  // exceeded as soon as the product is reached
      range.last = first_beyond(range, widest(range), weight, [this](std::uint64_t total) {
        return multiply_high(task_.top_p, total) - (task_.top_p * total == 0 ? 1 : 0);
      });
    }
    const std::uint64_t found = first_beyond(
        range, widest(range), weight, [this](std::uint64_t total) { return multiply_high(*task_.uniform, total); });
    return static_cast<std::int32_t>(found & 0xffffffffU);
  }

 private:
  static constexpr std::uint32_t kStep = Warps * 32;
  static constexpr float kLeastExponent = -28;  // of what has a weight
  struct Range {
    std::uint64_t first, last;  // of orders, both included
  };

  MEMLANE_KERNEL std::uint32_t begin(int lane) const { return static_cast<std::uint32_t>(warp_.index() * 32 + lane); }

  MEMLANE_KERNEL std::uint64_t order_at(std::uint32_t id) const {
    float score = task_.logits[id];
    const float penalty = task_.repetition_penalty;
    const bool penalised = penalty != 1 && (task_.seen[id / 32] >> id % 32 & 1) != 0;
    if (penalised) score = score > 0 ? score / penalty : score * penalty;
    return order_of(score, id);
  }

  MEMLANE_KERNEL std::uint64_t weight_of(std::uint64_t order) const {
    const float score = score_of(order);
    const float x = score == best_ ? 0.0F : (score - best_) / task_.temperature;
    return x > kLeastExponent ? static_cast<std::uint64_t>(precise_exponential(x) * kProbabilityUnits) : 0;
  }

  /// How far scores that have a weight are from the best at most.
  MEMLANE_KERNEL float widest(const Range& range) const {
    const float all = best_ - score_of(range.last), weighing = -kLeastExponent * task_.temperature;
    return all < weighing ? all : weighing;
  }

  MEMLANE_KERNEL std::uint64_t smallest(Lanes<std::uint64_t> x) {
    MEMLANE_UNROLL
    for (int mask = 16; mask > 0; mask /= 2) {
      const Lanes<std::uint64_t> other = warp_.shuffle_xor(x, mask);
      warp_.each([&](int lane) { x[lane] = other[lane] < x[lane] ? other[lane] : x[lane]; });
    }
    return warp_.broadcast(x, 0);
  }

  /// The first and the last of some orders.
  template <class Orders>
  MEMLANE_KERNEL Range range_of(const Orders& order_at, std::uint32_t size) {
    Lanes<std::uint64_t> first, behind;
    warp_.each([&](int lane) {
      std::uint64_t least = ~std::uint64_t{0}, inverted = ~std::uint64_t{0};
      for (std::uint32_t i = begin(lane); i < size; i += kStep) {
        const std::uint64_t order = order_at(i);
        least = order < least ? order : least;
        inverted = ~order < inverted ? ~order : inverted;
      }
      first[lane] = least;
      behind[lane] = inverted;
    });
    const std::uint64_t of_warp = smallest(first), behind_warp = smallest(behind);
    warp_.each([&](int lane) {
      if (lane != 0) return;
      memory_.first[warp_.index()] = of_warp;
      memory_.behind[warp_.index()] = behind_warp;
    });
    warp_.barrier();
    warp_.each([&](int lane) {
      first[lane] = lane < Warps ? memory_.first[lane] : ~std::uint64_t{0};
      behind[lane] = lane < Warps ? memory_.behind[lane] : ~std::uint64_t{0};
    });
    return {smallest(first), ~smallest(behind)};
  }

  /// The first candidate of a range, in their order, with which the sum of weights exceeds goal(sum of all).
  /// width: how far scores of most of them are from the best.
  template <class Weight, class Goal>
  MEMLANE_KERNEL std::uint64_t first_beyond(const Range& range, float width, const Weight& weight, const Goal& goal) {
    // Bins of equal widths of scores first, so that candidates spread: 32 lanes that add to one bin wait for each
    // other.
    float scale = width > 0 ? static_cast<float>(SampleMemory::kBins - 1) / width : 0;
    if (!(scale < 3e38F)) scale = 3e38F;
    const float best = best_;
    std::uint64_t rest = 0;
    std::uint32_t size = narrow([this](std::uint32_t id) { return order_at(id); }, task_.vocab, range.last,
                                [best, scale](std::uint64_t order) {
                                  const float x = (best - score_of(order)) * scale;
                                  return x < SampleMemory::kBins - 1 ? static_cast<std::uint32_t>(x)
                                                                     : SampleMemory::kBins - 1U;  // also if it is NaN
                                },
                                weight, goal, rest, task_.lists);
    for (std::uint32_t list = 0;; list = 1 - list) {  // then the leading bits in which those that are left differ
      const std::uint64_t* listed = task_.lists + static_cast<std::size_t>(list) * task_.vocab;
      const auto order_in_list = [listed](std::uint32_t i) { return listed[i]; };
      const Range left = range_of(order_in_list, size);
      if (left.first == left.last) return left.first;
      const int width_left = bit_width(left.last - left.first);
      const int shift = width_left > 8 ? width_left - 8 : 0;
      const std::uint64_t still = rest;
      size = narrow(
          order_in_list, size, left.last,
          [left, shift](std::uint64_t order) { return static_cast<std::uint32_t>((order - left.first) >> shift); },
          weight, [still](std::uint64_t) { return still; }, rest,
          task_.lists + static_cast<std::size_t>(1 - list) * task_.vocab);
    }
  }

  /// Lists the candidates up to `last` of the bin with which the sum of weights exceeds goal(sum of all); rest: what of
  /// that is left for the bin. Returns how many they are, in no order.
  template <class Orders, class Bin, class Weight, class Goal>
  MEMLANE_KERNEL std::uint32_t narrow(const Orders& order_at, std::uint32_t size, std::uint64_t last, const Bin& bin_of,
                                      const Weight& weight, const Goal& goal, std::uint64_t& rest,
                                      std::uint64_t* list) {
    warp_.each([&](int lane) {
      for (std::uint32_t bin = begin(lane); bin < SampleMemory::kBins; bin += kStep) memory_.bins[bin] = 0;
      if (begin(lane) == 0) memory_.listed = 0;
    });
    warp_.barrier();
    warp_.each([&](int lane) {
      for (std::uint32_t i = begin(lane); i < size; i += kStep) {
        const std::uint64_t order = order_at(i);
        if (order > last) continue;
        const std::uint64_t x = weight(order);
        if (x > 0) warp_.add(memory_.bins[bin_of(order)], x);
      }
    });
    warp_.barrier();
    const std::uint32_t bin = bin_beyond(goal, rest);
    warp_.each([&](int lane) {
      for (std::uint32_t i = begin(lane); i < size; i += kStep) {
        const std::uint64_t order = order_at(i);
        if (order <= last && bin_of(order) == bin) list[warp_.add(memory_.listed, std::uint32_t{1})] = order;
      }
    });
    warp_.barrier();
    return memory_.listed;
  }

  /// The bin with which the sum exceeds goal(sum of all), in every warp for itself.
  template <class Goal>
  MEMLANE_KERNEL std::uint32_t bin_beyond(const Goal& goal, std::uint64_t& rest) {
    constexpr std::uint32_t kGroup = SampleMemory::kBins / 32;  // bins of a lane
    Lanes<std::uint64_t> sums;
    warp_.each([&](int lane) {
      std::uint64_t sum = 0;
      for (std::uint32_t i = 0; i < kGroup; ++i) sum += memory_.bins[static_cast<std::uint32_t>(lane) * kGroup + i];
      sums[lane] = sum;
    });
    std::uint64_t total = 0;
    for (int lane = 0; lane < 32; ++lane) total += warp_.broadcast(sums, lane);
    rest = goal(total);
    int group = 0;
    for (std::uint64_t sum = warp_.broadcast(sums, 0); group < 31 && sum <= rest; sum = warp_.broadcast(sums, group)) {
      rest -= sum;
      ++group;
    }
    std::uint32_t bin = static_cast<std::uint32_t>(group) * kGroup;
    while (bin + 1 < SampleMemory::kBins && memory_.bins[bin] <= rest) rest -= memory_.bins[bin++];
    return bin;
  }

  Warp& warp_;
  const SampleTask& task_;
  SampleMemory& memory_;
  float best_ = 0;
};

/// The block of threads that chooses a token.
template <int Warps, class Warp>
MEMLANE_KERNEL void sample_block(Warp& warp, const SampleTask& task, SampleMemory& shared) {
  static_assert(Warps <= 32);
  const std::int32_t token = TokenSearch<Warps, Warp>(warp, task, shared).run();
  warp.each([&](int lane) {
    if (warp.index() == 0 && lane == 0) *task.chosen = token;
  });
}

}  // namespace memlane::cuda
