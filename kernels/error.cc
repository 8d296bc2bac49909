#include "kernels/error.h"

namespace memlane::detail {

void broken_contract(const char* condition, const char* file, int line) {
  throw std::logic_error(fmt::format("{}:{}: broken contract: {}", file, line, condition));
}

}  // namespace memlane::detail
