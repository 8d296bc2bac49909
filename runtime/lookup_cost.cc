#include "runtime/lookup_cost.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <random>
#include <span>
#include <vector>

#include "kernels/stopwatch.h"
#include "memory/document_memory.h"
#include "memory/entry_rows.h"
#include "memory/key_index.h"
#include "memory/list_index.h"
#include "memory/memory.h"
#include "runtime/short_timing.h"

namespace memlane {

namespace {

constexpr std::size_t kEntries = 16384;       // of the document that is made: a chunk of lists
constexpr std::size_t kNumbers = 1U << 21;    // of its keys at most, however wide they are
constexpr std::size_t kRowsPerThread = 1024;  // of queries: as many as fill the items that searches are cut into
constexpr std::size_t kWidest = 1024;         // keys whose lists are made
constexpr std::size_t kCopies = 8;            // of it, in larger memories
constexpr std::size_t kTopics = 64;           // keys lie around so many points, as those of texts do
constexpr float kNoise = 1.5F;                // how far, to the distance of the points

/// Keys, values and queries as those of texts are, as far as the time of a search depends on it.
class MadeUp {
 public:
  explicit MadeUp(std::size_t head_dim) : head_dim_(head_dim), topics_(kTopics * head_dim) {
    for (float& x : topics_) x = number();
  }
  Buffer<float> rows(std::size_t count) {
    Buffer<float> made(count * head_dim_);
    for (std::size_t i = 0; i < count; ++i) {
      const float* topic = topics_.data() + random_() % kTopics * head_dim_;
      // Of bfloat16 values, as the decoder's queries may be: attention takes another way with them.
      for (std::size_t d = 0; d < head_dim_; ++d) {
        made.data()[i * head_dim_ + d] = to_float(from_float<BFloat16>(topic[d] + kNoise * number()));
      }
    }
    return made;
  }

 private:
  float number() { return static_cast<float>(random_() % 2048) / 1024 - 1; }

  std::minstd_rand random_{1};
  std::size_t head_dim_;
  std::vector<float> topics_;
};

Segment segment_of(CpuExec& exec, MadeUp& made_up, const EntryShape& shape, std::size_t entries) {
  Segment segment(shape, entries);
  const Buffer<float> keys = made_up.rows(entries), values = made_up.rows(entries);
  segment.fill(exec, 0, keys.view<3>({entries, 1, shape.head_dim}), values.view<3>({entries, 1, shape.head_dim}));
  return segment;
}

/// The same document, its entries in bytes of their own. saved: its indexes.
DocumentMemory copy_of(const DocumentMemory& document, const std::vector<std::vector<std::byte>>& saved,
                       std::vector<Buffer<std::byte>>& bytes) {
  DocumentMemory copy(document.shape(), document.lookup());
  std::size_t size = 0;
  for (const Segment& segment : document.segments()) size += segment.bytes().size();
  std::byte* own = bytes.emplace_back(size).data();  // together: large enough for huge pages, as segments are
  for (const Segment& segment : document.segments()) {
    std::copy(segment.bytes().begin(), segment.bytes().end(), own);
    copy.append(Segment(document.shape(), segment.count(), own));
    own += segment.bytes().size();
  }
  const std::vector<std::span<const std::byte>> views(saved.begin(), saved.end());
  if (!views.empty()) copy.load_indexes(views, copy.entries());
  return copy;
}

}  // namespace

LookupCost::LookupCost(CpuExec& exec, const ModelConfig& config, const MemorySettings& settings, const Lookup& lookup,
                       std::size_t most) {
  const EntryShape shape = {{0}, 1, config.head_dim, settings.mem_dtype};
  // No more than will be there: a plan must not take more memory than what is planned.
  const std::size_t entries =
      std::clamp<std::size_t>(kNumbers / config.head_dim, 1, std::clamp<std::size_t>(most, 1, kEntries));
  const std::size_t window = std::min(settings.memory_window, entries);
  const std::size_t group = config.num_heads / config.num_kv_heads;
  const std::size_t tokens =
      std::clamp<std::size_t>(std::min(kRowsPerThread * exec.threads(), kNumbers / config.head_dim) / group, 1,
                              std::min(settings.memory_window, entries));
  Lookup measured = lookup;
  // Lists have covariances of head_dim^2 numbers: those of absurd models do not fit, which a plan is to say.
  const bool lists = lookup.has_lists() && config.head_dim <= kWidest;
  if (!lists && lookup.kind != Lookup::Kind::dense) measured.kind = Lookup::Kind::exact;

  MadeUp made_up(config.head_dim);
  const Buffer<float> queries = made_up.rows(tokens * group);
  PartialBuffer partial;
  const auto measure = [&](std::span<const DocumentMemory> documents, std::size_t times, std::size_t count) {
    Memory memory(shape, measured);
    for (std::size_t i = 0; i < times * documents.size(); ++i) memory.add(documents[i % documents.size()]);
    const AttentionPartial out = partial.get(count, group, config.head_dim);
    const double seconds = seconds_of([&] {
      memory.attend(exec, 0, queries.view<3>({count, group, config.head_dim}), 0.1F, out);
    });
    seconds_per_token_[memory.entries()] =
        seconds * static_cast<double>(config.num_kv_heads) / static_cast<double>(count);
  };

  std::vector<DocumentMemory> documents;
  documents.emplace_back(shape, measured);
  double indexing = 0;
  while (documents[0].entries() + window <= entries) {
    documents[0].append(segment_of(exec, made_up, shape, window));
    indexing += seconds_once([&] { documents[0].update_indexes(exec); });
    if (documents[0].entries() == window) measure(documents, 1, tokens);
  }
  if (documents[0].entries() > window && most > window) measure(documents, 1, tokens);
  // What is chosen is read here and there, and slowly where it no longer fits into a cache: so the copies are real.
  std::vector<Buffer<std::byte>> bytes;
  std::vector<std::vector<std::byte>> saved;
  if (most > documents[0].entries()) {
    if (measured.has_index()) saved = documents[0].save_indexes();
    while (documents.size() < kCopies && most > documents.size() * documents[0].entries()) {
      documents.push_back(copy_of(documents[0], saved, bytes));
      // So many lists are all scanned; of more, these and few others.
      if (documents.size() == 2 && measured.kind == Lookup::Kind::ivf) measure(documents, 1, tokens);
    }
    measure(documents, 1, measured.kind == Lookup::Kind::dense ? std::max<std::size_t>(1, tokens / 4) : tokens);
    if (measured.kind == Lookup::Kind::ivf && most > kCopies * documents[0].entries()) {
      measure(documents, kCopies, tokens);
    }
  }
  seconds_per_token_[0] = 0;
  // One index was made by one thread; those of all layers and heads are made by all threads.
  const std::size_t indexes = settings.mem_layers.size() * config.num_kv_heads;
  const double heads_at_once =
      static_cast<double>(config.num_kv_heads) / static_cast<double>(std::min(exec.threads(), indexes));
  const auto made = static_cast<double>(documents[0].entries());
  seconds_per_entry_ = lookup.has_index() ? indexing / made * heads_at_once : 0;
  if (measured.kind == Lookup::Kind::ivf && most > entries) {
    merging_ = ListSettings::of(measured);
    const EntryRows rows(documents[0].blocks(0, 0), shape.head_dim);
    const double seconds = seconds_once([&] { make_whole_index(measured, shape.head_dim, exec.micro(), rows); });
    indexed_ = documents[0].entries();
    seconds_per_merged_entry_ =
        seconds / made * heads_at_once / static_cast<double>(ListIndex::means_compared(*merging_, indexed_));
  }
}

double LookupCost::merging_seconds(std::size_t before, std::size_t after) const {
  if (!merging_) return 0;
  double seconds = 0;
  for (const auto& [size, entries] : ListIndex::merged_entries(*merging_, before, after)) {
    if (size <= indexed_) continue;  // is among what seconds_per_entry() counts
    seconds += static_cast<double>(entries) * seconds_per_merged_entry_ *
               static_cast<double>(ListIndex::means_compared(*merging_, size));
  }
  return seconds;
}

double LookupCost::seconds_per_token(std::size_t entries) const {
  auto after = seconds_per_token_.upper_bound(entries);
  if (after == seconds_per_token_.end()) after = std::prev(after);  // it grows on as between the last two
  const auto before = std::prev(after);
  const auto x = [](std::size_t at) { return static_cast<double>(at); };
  return before->second +
         (after->second - before->second) * (x(entries) - x(before->first)) / (x(after->first) - x(before->first));
}

}  // namespace memlane
