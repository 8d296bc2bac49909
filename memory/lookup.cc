#include "memory/lookup.h"

#include <fmt/format.h>

namespace memlane {

namespace {
constexpr std::size_t kMostDense = std::size_t{64} << 10;  // entries
constexpr std::size_t kMostExact = std::size_t{256} << 10;
}  // namespace

Lookup Lookup::named(std::string_view name) {
  Lookup lookup;
  if (name == "exact") {
    lookup.kind = Kind::exact;
  } else if (name == "int8") {
    lookup.kind = Kind::int8;
  } else if (name == "ivf") {
    lookup.kind = Kind::ivf;
  } else if (name == "auto") {
    lookup.kind = Kind::automatic;
  } else if (name != "dense") {
    lookup.kind = Kind::faiss;
    lookup.factory = name;
  }
  return lookup;
}

std::string Lookup::name() const {
  switch (kind) {
    case Kind::dense:
      return "dense";
    case Kind::exact:
      return "exact";
    case Kind::int8:
      return "int8";
    case Kind::ivf:
      return "ivf";
    case Kind::automatic:
      return "auto";
    case Kind::faiss:
      break;
  }
  return factory;
}

LookupChoice resolve(const Lookup& lookup, std::size_t entries) {
  if (lookup.kind != Lookup::Kind::automatic) return {lookup, ""};
  LookupChoice choice = {lookup, ""};
  if (entries <= kMostDense) {
    choice.lookup.kind = Lookup::Kind::dense;
    choice.reason = fmt::format("{} entries are few enough to attend to all (up to {})", entries, kMostDense);
  } else if (entries <= kMostExact) {
    choice.lookup.kind = Lookup::Kind::exact;
    choice.reason =
        fmt::format("{} entries: too many to attend to all (up to {}), few enough to scan every key (up to {})",
                    entries, kMostDense, kMostExact);
  } else {
    choice.lookup.kind = Lookup::Kind::ivf;
    choice.reason = fmt::format("{} entries are too many to scan every key (up to {})", entries, kMostExact);
  }
  return choice;
}

}  // namespace memlane
