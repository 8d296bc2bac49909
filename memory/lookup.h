#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace memlane {

/// How memory layers look entries up.
struct Lookup {
  enum class Kind {
    dense,     ///< attend to every entry, as LongLLaMA does
    exact,     ///< the top_k entries of each query and head by inner product, found by scanning all keys
    int8,      ///< the same, found by scanning keys in int8; the best are scored again by the stored keys
    ivf,       ///< the same in some lists of keys that lie near one another
    faiss,     ///< the same, proposed by a FAISS index; scores are computed from the stored keys
    automatic  ///< one of the above, by the number of entries: see resolve()
  };

  Kind kind = Kind::dense;
  std::string factory;     ///< faiss: the index's factory string, such as "IVF256,Flat"
  std::string parameters;  ///< of an index: "probes=64,tail=on" (ListSettings); faiss: search-time parameters
  std::size_t top_k = 128;

  /// "dense", "exact", "int8", "ivf", "auto", or anything else as a FAISS factory string.
  static Lookup named(std::string_view name);
  /// The inverse of named().
  std::string name() const;

  /// Whether documents keep key indexes for it.
  bool has_index() const { return has_lists() || kind == Kind::faiss; }
  /// Whether those are ours, of lists.
  bool has_lists() const { return kind == Kind::int8 || kind == Kind::ivf; }
};

/// A lookup, and why it was chosen.
struct LookupChoice {
  Lookup lookup;
  std::string reason;  ///< empty if it was given by name
};

/// Chooses for a memory of so many entries what reads least without giving up what is found: every entry while they
/// are few, then every key, then lists. A lookup that is not automatic stays what it is.
LookupChoice resolve(const Lookup& lookup, std::size_t entries);

}  // namespace memlane
