#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace memlane {

/// How memory layers look entries up.
struct Lookup {
  enum class Kind {
    dense,  ///< attend to every entry, as LongLLaMA does
    exact,  ///< the top_k entries of each query and head by inner product, found by scanning all keys
    faiss   ///< the same, proposed by a FAISS index; scores are computed from the stored keys
  };

  Kind kind = Kind::dense;
  std::string factory;     ///< faiss: the index's factory string, such as "IVF256,Flat"
  std::string parameters;  ///< faiss: search-time parameters, such as "nprobe=16"; empty for FAISS's defaults
  std::size_t top_k = 128;

  /// "dense", "exact", or anything else as a FAISS factory string.
  static Lookup named(std::string_view name);
  /// The inverse of named().
  std::string name() const;
};

}  // namespace memlane
