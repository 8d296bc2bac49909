#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "runtime/rope_scaling.h"

namespace memlane {

/// Where a scaling is used.
struct RopeUse {
  std::size_t head_dim = 0;
  std::size_t length = 0;                    ///< tokens that are rotated together: the window, or the current length
  bool memory = false;                       ///< in memory layers
  std::size_t max_position_embeddings = 0;   ///< of the config; 0 if there is none
  std::optional<double> unused_factor = {};  ///< that was given, and that the method does not look at
};

/// What happened to a pair's frequency.
enum class RopeBand {
  unscaled,     ///< nothing
  blended,      ///< divided by less than the factor
  interpolated  ///< divided by the factor or more
};
std::string name_of(RopeBand band);

/// One pair of dimensions. Wavelengths are tokens for a whole turn.
struct RopePair {
  double unscaled_wavelength, wavelength;
  double turns;  ///< within the length
  RopeBand band;
};

/// What a scaling comes to.
struct RopeReport {
  double factor = 1, base = 0;   ///< at this length
  std::optional<RopeRamp> ramp;  ///< pairs, where the method has one
  RopeFrequencies frequencies;
  std::vector<RopePair> pairs;        ///< [head_dim / 2]
  std::size_t still_pairs = 0;        ///< that turn less than half a radian within the length
  std::vector<std::string> warnings;  ///< where other runtimes differ, or the setting is known to hurt
};

/// The scaling must have passed check_rope_scaling. use.length > 0.
RopeReport rope_report(const RopeScaling& scaling, const RopeUse& use);

}  // namespace memlane
