#include "runtime/rope_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace memlane {

namespace {

constexpr double kHalfRadian = 0.5;

bool has_index_ramp(RopeMethod method) {
  return method == RopeMethod::ntk_by_parts || method == RopeMethod::yarn || method == RopeMethod::dynamic_yarn;
}

bool has_yarn_factor(RopeMethod method) {
  return method == RopeMethod::yarn || method == RopeMethod::dynamic_yarn;
}

std::optional<RopeRamp> ramp_of(RopeScaling scaling, std::size_t head_dim) {
  if (has_index_ramp(scaling.method)) return yarn_ramp(scaling, head_dim);
  scaling.truncate = false;
  if (scaling.method == RopeMethod::llama3) {
    scaling.beta_fast = scaling.high_freq_factor;
    scaling.beta_slow = scaling.low_freq_factor;
  } else if (scaling.method != RopeMethod::ntk_by_parts_paper) {
    return std::nullopt;
  }
  return yarn_ramp(scaling, head_dim);
}

std::vector<RopePair> pairs_of(const RopeScaling& scaling, const RopeUse& use, const RopeReport& report) {
  const RopeFrequencies plain = rope_frequencies({.theta = scaling.theta}, use.head_dim, use.length);
  std::vector<RopePair> pairs;
  for (std::size_t i = 0; i < plain.inv_freq.size(); ++i) {
    const double turn = 2 * std::numbers::pi;
    const double divided_by = plain.inv_freq[i] / report.frequencies.inv_freq[i];
    const RopeBand band = std::abs(divided_by - 1) < 1e-9            ? RopeBand::unscaled
                          : divided_by >= report.factor * (1 - 1e-9) ? RopeBand::interpolated
                                                                     : RopeBand::blended;
    pairs.push_back({turn / plain.inv_freq[i], turn / report.frequencies.inv_freq[i],
                     static_cast<double>(use.length) * report.frequencies.inv_freq[i] / turn, band});
  }
  return pairs;
}

/// Collects warnings about one scaling.
class Linter {
 public:
  Linter(const RopeScaling& scaling, const RopeUse& use, RopeReport& report)
      : scaling_(scaling), use_(use), report_(report) {}

  void check() {
    about_length();
    if (has_index_ramp(scaling_.method) || scaling_.method == RopeMethod::ntk_by_parts_paper) about_ramp();
    if (has_yarn_factor(scaling_.method)) about_attention_factor();
    if (depends_on_length(scaling_)) about_dynamic();
    about_factor();
    if (use_.memory) about_memory();
  }

 private:
  template <class... Args>
  void warn(fmt::format_string<Args...> text, Args&&... args) {
    report_.warnings.push_back(fmt::format(text, std::forward<Args>(args)...));
  }

  bool is_static() const { return scaling_.method != RopeMethod::none && !depends_on_length(scaling_); }

  void about_length() {
    const auto original = static_cast<double>(scaling_.original_length);
    const auto length = static_cast<double>(use_.length);
    if (original == 0) return;
    if (scaling_.method == RopeMethod::none && length > original) {
      warn("{} tokens are more than the {} of training, and nothing is scaled: attention breaks down beyond them",
           use_.length, scaling_.original_length);
    }
    if (is_static() && scaling_.factor > 1 && length <= original) {
      warn(
          "{} tokens lie within the {} of training: unless the model was tuned with it, a factor of {:g} can only hurt",
          use_.length, scaling_.original_length, scaling_.factor);
    }
    if (is_static() && length > scaling_.factor * original) {
      warn("{} tokens are more than factor x original length, {:g}: positions beyond that were never seen", use_.length,
           scaling_.factor * original);
    }
  }

  void about_ramp() {
    RopeScaling other = scaling_;
    const bool is_paper = scaling_.method == RopeMethod::ntk_by_parts_paper;
    other.method = is_paper ? RopeMethod::ntk_by_parts : RopeMethod::ntk_by_parts_paper;
    other.factor = report_.factor;
    const RopeFrequencies others = rope_frequencies(other, use_.head_dim, use_.length);
    double most = 0;
    for (std::size_t i = 0; i < others.inv_freq.size(); ++i) {
      most = std::max(most, std::abs(others.inv_freq[i] / report_.frequencies.inv_freq[i] - 1));
    }
    if (is_paper) {
      warn(
          "the ramp in turns of YaRN's definition 2: no other runtime has it; theirs runs in the number of the pair, "
          "and frequencies differ by up to {:.0f} %",
          100 * most);
    } else if (most > 0.005) {
      warn(
          "the ramp runs in the number of the pair, as in every runtime; definition 2 of the YaRN paper "
          "(ntk-by-parts-paper) differs by up to {:.0f} %",
          100 * most);
    }
    if (is_paper) return;
    if (report_.ramp->low > report_.ramp->high) {
      warn(
          "the ramp ends (pair {:g}) before it begins (pair {:g}), as in every runtime for so extreme an original "
          "length: pairs are interpolated the wrong way round",
          report_.ramp->high, report_.ramp->low);
    }
    if (report_.ramp->high > static_cast<double>(use_.head_dim) / 2 - 1) {
      warn(
          "the ramp ends at pair {:g}, beyond the last, {}: no pair is interpolated fully (runtimes bound it by "
          "head_dim - 1; one that bounds it by the number of pairs differs)",
          report_.ramp->high, use_.head_dim / 2 - 1);
    }
    if (!scaling_.truncate) {
      warn(
          "truncate=false keeps the ends of the ramp as fractions: llama.cpp and transformers of before the key round "
          "them outwards");
    }
  }

  void about_attention_factor() {
    const double usual = report_.factor > 1 ? 0.1 * std::log(report_.factor) + 1 : 1;
    const bool mscale = scaling_.mscale.value_or(0) != 0;
    const bool all_dim = scaling_.mscale_all_dim.value_or(0) != 0;
    if (scaling_.attention_factor) {
      warn(
          "the attention factor is set to {:g} in place of 0.1 ln(factor) + 1 = {:g}; llama.cpp and vLLM multiply "
          "their attn_factor by that, so there it must be {:g}",
          *scaling_.attention_factor, usual, *scaling_.attention_factor / usual);
    } else if (mscale && all_dim) {
      warn(
          "mscale and mscale_all_dim give the attention factor {:g}, as in transformers; runtimes that do not read "
          "them use {:g}",
          report_.frequencies.attention_factor, usual);
    } else if (mscale || all_dim) {
      warn("{} alone has no effect, as in transformers; both are needed, and other runtimes may use the one",
           mscale ? "mscale" : "mscale_all_dim");
    }
    if (scaling_.method == RopeMethod::yarn && scaling_.factor > 1) {
      warn(
          "static YaRN scales short texts as well, which costs quality there (Qwen's users measured a third of a chat "
          "score at factor 4); dynamic-yarn scales only what is longer than {} tokens",
          scaling_.original_length);
    }
  }

  void about_dynamic() {
    if (scaling_.method == RopeMethod::dynamic_ntk) {
      if (scaling_.factor > 1) {
        const double s = scaling_.factor;
        warn(
            "the factor grows as s l/L - (s - 1): s = {:g} gives {:g} at {:g} x the original length; s = 1 gives the "
            "plain l/L",
            s, s * s - (s - 1), s);
      }
      warn(
          "vLLM's \"dynamic\" is one static base for the longest length; transformers takes the original length from "
          "max_position_embeddings alone");
    }
    if (use_.unused_factor) {
      warn("the factor {:g} is not used: {} takes length / original length, as the code of YaRN's authors does{}",
           *use_.unused_factor, name_of(scaling_.method),
           scaling_.method == RopeMethod::dynamic_yarn ? " unless the config says finetuned" : "");
    }
    if (scaling_.method == RopeMethod::dynamic_linear || scaling_.method == RopeMethod::dynamic_yarn) {
      warn("transformers, vLLM and llama.cpp have no {}; the code of YaRN's authors never lets the factor shrink again",
           name_of(scaling_.method));
    }
    if (scaling_.method == RopeMethod::dynamic_yarn && scaling_.factor > 1) {
      warn(
          "the factor is {:g} for short texts, too, as for a model tuned with it (the YaRN authors' finetuned); for "
          "another leave it out",
          scaling_.factor);
    }
    if (scaling_.method == RopeMethod::longrope) {
      warn(
          "all frequencies change at once beyond {} tokens: runtimes that cache rotated keys mix both lists from there",
          scaling_.original_length);
    } else {
      warn(
          "frequencies change with every token beyond {}: runtimes that cache rotated keys leave each key under the "
          "frequencies of its own step",
          scaling_.original_length);
    }
  }

  void about_factor() {
    const double ratio =
        static_cast<double>(use_.max_position_embeddings) / static_cast<double>(scaling_.original_length);
    const bool from_ratio = scaling_.method == RopeMethod::yarn || scaling_.method == RopeMethod::longrope;
    if (from_ratio && use_.max_position_embeddings > scaling_.original_length &&
        std::abs(ratio - scaling_.factor) > 1e-9) {
      warn(
          "factor {:g} is not max_position_embeddings / original_max_position_embeddings = {:g}: the factor counts, "
          "but "
          "transformers before its pull request 40320 took the ratio",
          scaling_.factor, ratio);
    }
    if (scaling_.method == RopeMethod::ntk_aware && scaling_.factor > 1) {
      warn(
          "only the slowest pair is stretched by the whole factor, so the reach is less than {:g} x the original "
          "length; runtimes without this method take the base {:.6g} as rope_theta",
          scaling_.factor, report_.base);
    }
    if (scaling_.method == RopeMethod::linear && scaling_.factor > 1) {
      warn(
          "linear scaling also slows the fastest pairs, which tell neighbouring tokens apart: poor without "
          "fine-tuning");
    }
    if (is_static() && scaling_.method != RopeMethod::llama3 && scaling_.factor >= 8) {
      warn("at a factor of {:g} every method is poor without fine-tuning", scaling_.factor);
    }
  }

  void about_memory() {
    if (report_.frequencies.attention_factor != 1) {
      warn(
          "scores of stored keys are multiplied by the square of the attention factor, {:g}: memory weighs against the "
          "window as it did not in training",
          report_.frequencies.attention_factor * report_.frequencies.attention_factor);
    }
    const std::size_t pairs = report_.pairs.size();
    if (report_.still_pairs * 4 < pairs) {
      warn(
          "{} of {} pairs turn less than half a radian within {} tokens: only these match stored keys by content from "
          "every place in the window; a shorter window or a larger base keeps more",
          report_.still_pairs, pairs, use_.length);
    }
  }

  const RopeScaling& scaling_;
  const RopeUse& use_;
  RopeReport& report_;
};

}  // namespace

std::string name_of(RopeBand band) {
  switch (band) {
    case RopeBand::unscaled:
      return "unscaled";
    case RopeBand::blended:
      return "blended";
    default:
      return "interpolated";
  }
}

RopeReport rope_report(const RopeScaling& scaling, const RopeUse& use) {
  RopeReport report;
  report.factor = effective_factor(scaling, use.length);
  report.base = effective_base(scaling, use.head_dim, use.length);
  report.ramp = ramp_of(scaling, use.head_dim);
  report.frequencies = rope_frequencies(scaling, use.head_dim, use.length);
  report.pairs = pairs_of(scaling, use, report);
  for (const double frequency : report.frequencies.inv_freq) {
    if (frequency * static_cast<double>(use.length) < kHalfRadian) ++report.still_pairs;
  }
  Linter(scaling, use, report).check();
  return report;
}

}  // namespace memlane
