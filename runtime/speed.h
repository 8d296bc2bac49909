#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/machine_limits.h"
#include "kernels/stage_clock.h"
#include "runtime/random_model.h"
#include "runtime/session.h"

namespace memlane {

/// One thing whose speed is measured.
struct SpeedCase {
  enum class Kind {
    prefill,  ///< a window with nothing before it, logits of its last token
    decode,   ///< one token after a short question
    ingest    ///< a window that is read into memory
  };
  Kind kind = Kind::prefill;
  Lookup lookup;
  std::size_t memory = 0;  ///< entries that memory layers see

  std::string name() const;  ///< "prefill", "decode", "ingest"
};

/// What a case takes at least: operations of matrix products and of attention, and bytes that have to be read.
struct SpeedFloor {
  double matmul_operations = 0;
  double attention_operations = 0;
  double list_operations = 0;  ///< of those with keys in int8
  double bytes = 0;

  /// The shortest time at these limits. precision: of the model.
  double seconds(const MachineLimits& limits, Precision precision) const;
};

/// A case, measured.
struct SpeedCell {
  SpeedCase of;
  std::size_t tokens = 0;       ///< that one measurement is for: a window's, or 1
  std::vector<double> seconds;  ///< of each round
  std::vector<MachineLimits> limits;
  StageClock::Seconds stages = {};  ///< mean of the rounds
  SpeedFloor floor;
};

/// Times passes of a model, whatever its weights, with random entries in memory. Passes are those that Session makes.
class SpeedRun {
 public:
  struct Settings {
    MemorySettings memory;
    std::size_t most_entries = 0;   ///< of memory
    std::size_t decode_tokens = 8;  ///< in a round
    std::size_t ring_bytes = 0;     ///< that READ goes through
    const std::atomic<bool>* stop = nullptr;
  };
  /// exec, model: must outlive this.
  SpeedRun(CpuExec& exec, const Model& model, const Settings& settings);

  /// Measures a case `rounds` times after a round that does not count, the machine's limits between the rounds.
  /// Throws Interrupted.
  SpeedCell measure(const SpeedCase& of, std::size_t rounds);

  /// Entries of a segment of the random memory.
  static constexpr std::size_t kSegment = 2048;
  static constexpr std::size_t kQuestion = 32;  ///< tokens before those that are decoded

  /// Bytes beside the weights.
  static std::size_t bytes(const ModelConfig& config, Precision precision, const Settings& settings);

 private:
  double pass(const SpeedCase& of, Memory& memory);
  void clear();
  SpeedFloor floor(const SpeedCase& of) const;

  CpuExec& exec_;
  const Model& model_;
  Settings settings_;
  RandomMemory entries_;
  LocalAttention<CpuExec> local_;
  Decoder<CpuExec> decoder_;
  LimitsProbe limits_;
  StageClock clock_;
  std::vector<std::int32_t> ids_;
  Buffer<float> logits_;
};

}  // namespace memlane
