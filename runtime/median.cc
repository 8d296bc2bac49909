#include "runtime/median.h"

#include <algorithm>
#include <cstddef>

#include "kernels/error.h"

namespace memlane {

double median(std::vector<double> values) {
  MEMLANE_EXPECTS(!values.empty());
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace memlane
