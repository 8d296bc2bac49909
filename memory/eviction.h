#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace memlane {

/// What a document's windows see of those before them where only so many entries are kept while it is read.
struct EvictionPolicy {
  enum class Rule {
    oldest,         ///< the newest windows stay
    least_attended  ///< the windows stay that got the most attention: AttendedWindows
  };
  Rule rule = Rule::oldest;
  std::size_t entries = 0;  ///< that are kept at most, in whole windows

  friend bool operator==(const EvictionPolicy&, const EvictionPolicy&) = default;
};

/// In a header's settings, where documents were read so.
inline constexpr const char* kEviction = "evict";
/// "oldest, 8192 entries" or "least attended, 8192 entries".
std::string to_text(const EvictionPolicy& policy);
/// The reverse; none for what to_text() does not write, and for 0 entries.
std::optional<EvictionPolicy> eviction_policy(std::string_view text);

/// A window of a document that the next window sees, and the attention that it got so far. So in a memory file.
struct SeenWindow {
  std::uint32_t index = 0;  ///< place in the document
  std::uint32_t times = 0;  ///< windows that have seen it
  double weight = 0;        ///< 0 … 1; 0 if none has

  friend bool operator==(const SeenWindow&, const SeenWindow&) = default;
};
static_assert(sizeof(SeenWindow) == 16);

/// A competition of a document's windows for the attention of those after them.
///
/// A window's share is the part of the attention of the window just read that went to its entries: a mean over tokens
/// of that window, over query heads and over the memory layers that attended. Its weight is the first share that it
/// got, and from then on the mean of its weight and its new share: what was attended to long ago counts less and less,
/// and having been there for longer is no advantage. When there are more entries than may be kept, the window of the
/// least weight for each of its entries is evicted, the older of equals, until there are not. What came last has been
/// seen by nobody, so it stays.
///
/// Where memory layers cut windows, each part competes by itself.
class AttendedWindows {
 public:
  /// entries: that are kept at most; no fewer than the windows given to read() make together.
  explicit AttendedWindows(std::size_t entries) : most_(entries) {}

  /// Goes on from a stored state. counts: entries of these windows, as many.
  void resume(std::span<const SeenWindow> seen, std::span<const std::size_t> counts);

  /// A window was read that saw seen(), and became the windows first, first + 1, … of so many entries each.
  /// sums: [entries of seen(), and then of others, which do not count]: the weight of each entry, summed over
  /// `tokens` tokens.
  void read(std::uint32_t first, std::span<const std::size_t> counts, std::span<const double> sums, std::size_t tokens);

  /// What the next window sees, in the order of the document.
  std::span<const SeenWindow> seen() const { return seen_; }
  /// The same as places among what there was before and what came with the last read(), ascending.
  std::span<const std::size_t> places() const { return places_; }

 private:
  void add_shares(std::span<const double> sums, std::size_t tokens);
  bool evict_one();

  std::size_t most_;
  std::size_t entries_ = 0;  // of seen_
  std::vector<SeenWindow> seen_;
  std::vector<std::size_t> counts_;  // [seen_]
  std::vector<std::size_t> places_;  // [seen_]
};

/// What is wrong with what is said to be seen after a window was read; empty if nothing is. before: what that window
/// saw. first: its first part. counts: entries of all windows of the document so far. most: entries that are kept.
std::string fault_of(std::span<const SeenWindow> seen, std::span<const SeenWindow> before, std::size_t first,
                     std::span<const std::size_t> counts, std::size_t most);

}  // namespace memlane
