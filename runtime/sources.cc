#include "runtime/sources.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <utility>

#include "memory/hash.h"

namespace memlane {

namespace {

constexpr double kLightest = 0.1;  // of the heaviest entry of a span
constexpr std::size_t kLongestGap = 4;
constexpr std::size_t kLongest = 64;  // entries of a span

/// The places of the heaviest weights above 0, heaviest first; of equal ones the first.
std::vector<std::size_t> heaviest(std::span<const double> weights, std::size_t most) {
  // A heap with the lightest on top; places are negated, so that of equal weights the last one goes first.
  using Candidate = std::pair<double, std::ptrdiff_t>;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> kept;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0) continue;
    if (kept.size() == most && weights[i] <= kept.top().first) continue;
    kept.emplace(weights[i], -static_cast<std::ptrdiff_t>(i));
    if (kept.size() > most) kept.pop();
  }
  std::vector<std::size_t> places(kept.size());
  for (std::size_t i = kept.size(); i-- > 0; kept.pop()) places[i] = static_cast<std::size_t>(-kept.top().second);
  return places;
}

/// Entries [begin, end) around a peak, within [low, high).
std::pair<std::size_t, std::size_t> grow(std::span<const double> weights, std::size_t peak, std::size_t low,
                                         std::size_t high) {
  std::size_t begin = peak;
  std::size_t end = peak + 1;
  const double least = kLightest * weights[peak];
  // Both sides in turn, so that the longest span is not all on one side of the peak.
  for (bool grew = true; grew;) {
    grew = false;
    for (std::size_t i = begin; i-- > low && begin - i <= kLongestGap + 1 && end - i <= kLongest;) {
      if (weights[i] < least) continue;
      begin = i;
      grew = true;
      break;
    }
    for (std::size_t i = end; i < high && i - end <= kLongestGap && i + 1 - begin <= kLongest; ++i) {
      if (weights[i] < least) continue;
      end = i + 1;
      grew = true;
      break;
    }
  }
  return {begin, end};
}

}  // namespace

std::vector<SourceSpan> heaviest_spans(std::span<const double> weights, std::span<const std::size_t> sizes,
                                       std::size_t most) {
  std::vector<std::size_t> ends;  // of the documents
  std::size_t total = 0;
  for (const std::size_t size : sizes) ends.push_back(total += size);
  MEMLANE_EXPECTS(total <= weights.size());
  weights = weights.first(total);

  std::vector<SourceSpan> spans;  // first: counted through all documents, until the end
  // A span covers at most kLongest of the heaviest entries, so these are enough for all peaks.
  for (const std::size_t peak : heaviest(weights, most * kLongest)) {
    if (spans.size() == most) break;
    const auto document = static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), peak) - ends.begin());
    std::size_t low = ends[document] - sizes[document];
    std::size_t high = ends[document];
    bool taken = false;
    for (const SourceSpan& span : spans) {
      const std::size_t end = span.first + span.count;
      taken = taken || (span.first <= peak && peak < end);
      if (end <= peak) low = std::max(low, end);
      if (span.first > peak) high = std::min(high, span.first);
    }
    if (taken) continue;
    const auto [begin, end] = grow(weights, peak, low, high);
    SourceSpan span{document, begin, end - begin, 0, weights[peak]};
    for (std::size_t i = begin; i < end; ++i) span.weight += weights[i];
    spans.push_back(span);
  }
  for (SourceSpan& span : spans) span.first -= ends[span.document] - sizes[span.document];
  std::stable_sort(spans.begin(), spans.end(),
                   [](const SourceSpan& a, const SourceSpan& b) { return a.weight > b.weight; });
  return spans;
}

DocumentText::DocumentText(const StoredDocument& document, const Tokenizer& tokenizer) {
  TextStream stream(tokenizer, /*at_start_of_text=*/true);
  begins_.reserve(document.entries() + 1);
  for (const StoredWindow& window : document.windows) {
    for (const std::int32_t id : window.ids) {
      begins_.push_back(text_.size());
      // A model may have more ids than its tokenizer has pieces; those have no text.
      if (static_cast<std::size_t>(id) < tokenizer.size()) text_ += stream.push(id);
    }
  }
  text_ += stream.finish();
  begins_.push_back(text_.size());
  is_original_ = document.complete && text_.size() == document.info.text_bytes &&
                 Fingerprint().add(text_).hex() == document.info.text_fingerprint;
}

DocumentText::Range DocumentText::range_of(std::size_t first, std::size_t count) const {
  MEMLANE_EXPECTS(count > 0 && first + count < begins_.size());
  // Where the last entry is a byte within a character, nothing of it was given out before the character was whole.
  std::size_t end = first + count;
  while (end + 1 < begins_.size() && begins_[end] == begins_[end - 1]) ++end;
  return {begins_[first], begins_[end]};
}

}  // namespace memlane
