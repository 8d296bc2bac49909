#pragma once

#include <vector>

namespace memlane {

/// The middle of the values, the mean of both middle ones of an even number. values: at least one.
double median(std::vector<double> values);

}  // namespace memlane
