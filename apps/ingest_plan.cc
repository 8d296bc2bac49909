#include "apps/ingest_plan.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <limits>

#include "apps/progress.h"
#include "kernels/error.h"
#include "runtime/cost_estimate.h"
#include "runtime/resources.h"
#include "runtime/session.h"
#include "runtime/stored_memory.h"
#include "runtime/window_eviction.h"
#include "runtime/window_plan.h"

namespace memlane {

namespace {

constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

/// Segments that a document of so many tokens is cut into.
std::size_t segments_for(const MemorySettings& settings, std::size_t tokens) {
  return tokens / settings.window * windows_for(settings.window, settings.memory_window) +
         windows_for(tokens % settings.window, settings.memory_window);
}

/// Tokens of the largest document that is not read yet; 0 if all are.
std::size_t largest(const IngestWork& work) {
  std::size_t most = 0;
  for (const Reading& reading : work.readings) {
    if (reading.done < reading.tokens) most = std::max(most, reading.tokens);
  }
  return most;
}

bool weighs(const IngestWork& work) {
  return work.eviction && work.eviction->rule == EvictionPolicy::Rule::least_attended;
}

/// Entries that are in memory at once, those of the window being read included.
std::size_t entries_at_once(const IngestWork& work) {
  const std::size_t all = largest(work);
  const std::size_t kept = work.eviction ? work.eviction->entries : all;
  return kept < all ? std::min(all, kept + work.settings.window) : all;
}

/// entries: that are in memory at once.
MemoryNeed memory_need(const CpuExec& exec, const IngestWork& work, std::size_t entries) {
  const EntryShape shape = entry_shape(work.config, work.settings);
  const SessionSize size = {largest(work), entries, segments_for(work.settings, entries)};
  MemoryNeed need = session_need(exec, work.config, work.settings, work.precision, work.lookup, size);
  // A second time, for the bytes that are stored when the document ends.
  need.fixed += 2 * index_bytes(shape, work.lookup, entries) +
                indexing_bytes(exec, shape, work.lookup, std::min(entries, work.settings.memory_window), entries);
  if (weighs(work)) need.fixed += EvictingReader::weighing_bytes(work.config, work.settings, entries);
  // A window is this process's until it is stored, even if entries are then used where they lie in the file.
  const std::size_t window = std::min(entries, work.settings.window);
  need.fixed += Session::entry_bytes(work.config, work.settings, window);
  need.entries = Session::entry_bytes(work.config, work.settings, entries - window);
  return need;
}

/// A segment and its ids for each sub-window of each window, what windows see, and the key index.
std::uint64_t disk_bytes(const IngestWork& work, const Reading& reading) {
  constexpr std::size_t kRecordBytes = 512;  // headers and padding of a record, generously
  const EntryShape shape = entry_shape(work.config, work.settings);
  const std::size_t left = reading.tokens - reading.done, window = work.settings.window;
  std::uint64_t bytes = index_bytes(shape, work.lookup, reading.tokens) + 8 * kRecordBytes;
  for (std::size_t begin = 0; begin < left;) {
    const std::size_t count = std::min({left - begin, window - begin % window, work.settings.memory_window});
    bytes += shape.segment_bytes(count) + count * sizeof(std::int32_t) + kRecordBytes;
    begin += count;
  }
  if (weighs(work)) {
    const std::size_t seen = segments_for(work.settings, std::min(reading.tokens, work.eviction->entries));
    bytes += windows_for(left, window) * seen * sizeof(SeenWindow);
  }
  return bytes;
}

}  // namespace

IngestPlan plan_ingest(const CpuExec& exec, const IngestWork& work) {
  IngestPlan plan;
  plan.memory = memory_need(exec, work, entries_at_once(work));
  for (const Reading& reading : work.readings) {
    if (reading.done < reading.tokens) plan.disk_bytes += disk_bytes(work, reading);
  }
  return plan;
}

double ingest_seconds(CpuExec& exec, const IngestWork& work, const IngestPlan& plan, const std::string& memory) {
  ReadingCost cost;
  for (const Reading& reading : work.readings) {
    if (reading.done == reading.tokens) continue;
    cost += reading_cost(work.config, work.settings, reading.done, reading.tokens,
                         work.eviction ? work.eviction->entries : kNoLimit);
  }
  if (cost.matmul_flops == 0) return 0;
  const double seconds = estimate_seconds(exec, work.config, work.settings, work.precision, work.lookup, cost) +
                         static_cast<double>(plan.disk_bytes) * seconds_per_byte_written(memory);
  ::malloc_trim(0);  // what was measured with is not planned as part of what reading takes
  return seconds;
}

std::size_t entries_to_keep(const CpuExec& exec, const IngestWork& work, const MemoryBudget& budget) {
  const std::size_t window_bytes = Session::entry_bytes(work.config, work.settings, work.settings.window);
  // What is fixed grows a little with the segments that are kept: first as if it were nothing, then with as many.
  std::size_t windows = 0;
  MemoryNeed need;
  for (const bool first : {true, false}) {
    const std::size_t entries = first ? work.settings.window : (windows + 1) * work.settings.window;
    need = memory_need(exec, work, std::min(std::max(entries, work.settings.window), largest(work)));
    windows = budget.room(need) / window_bytes;
  }
  if (windows == 0) {
    input_error(
        "--max-memory-bytes: reading these documents needs {} to keep a single window before each, {} are allowed; "
        "allow more, or use a smaller --window or --weights int8 or int4",
        bytes_text(need.fixed + ResidentLimit::margin(*budget.most) + window_bytes), bytes_text(*budget.most));
  }
  return windows * work.settings.window;
}

std::string plan_text(const IngestPlan& plan, const MemoryBudget& budget, const std::string& memory,
                      const std::optional<EvictionPolicy>& eviction) {
  std::string text =
      fmt::format("  needs {} of memory ({} free), {} of disk ({} free) and about {}\n",
                  bytes_text(budget.planned(plan.memory)), bytes_text(free_memory()), bytes_text(plan.disk_bytes),
                  bytes_text(free_disk(memory)), duration_text(plan.seconds));
  if (budget.most) {
    const bool beyond = plan.memory.bytes() > *budget.most;
    text +=
        fmt::format("  of {} that it may take, {} are fixed (weights, window, workspace); entries would take {}{}\n",
                    bytes_text(*budget.most), bytes_text(plan.memory.fixed), bytes_text(plan.memory.entries),
                    beyond ? fmt::format(": {}", name_of(budget.choice())) : "");
  }
  if (eviction) {
    text +=
        fmt::format("  each window sees at most {} entries of those before it, the {}\n", count_text(eviction->entries),
                    eviction->rule == EvictionPolicy::Rule::oldest ? "newest" : "most attended to");
  }
  return text;
}

}  // namespace memlane
