#include "memory/lookup.h"

namespace memlane {

Lookup Lookup::named(std::string_view name) {
  Lookup lookup;
  if (name == "exact") {
    lookup.kind = Kind::exact;
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
    case Kind::faiss:
      break;
  }
  return factory;
}

}  // namespace memlane
