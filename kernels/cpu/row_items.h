#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>

namespace memlane::list_search {

/// One of several things that a row has, by its number among them.
struct RowItem {
  std::uint32_t row;
  std::uint32_t number;
};

/// Sorts what rows have by places, by counting. for_each(take) calls take(place, item) for every item, in the same
/// order each time, in which those of one place stay. ends: [places + 1], afterwards where those of each place end in
/// `sorted`, and all of them.
template <class ForEach>
void sort_by_place(std::size_t places, const ForEach& for_each, std::size_t* ends, RowItem* sorted) {
  std::fill_n(ends, places + 1, std::size_t{0});
  for_each([&](std::size_t place, RowItem) { ++ends[place + 1]; });
  std::partial_sum(ends, ends + places + 1, ends);
  for_each([&](std::size_t place, RowItem item) { sorted[ends[place]++] = item; });
}

}  // namespace memlane::list_search
