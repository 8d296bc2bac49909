#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/asked_memory.h"
#include "apps/commands.h"
#include "apps/count_option.h"
#include "apps/interrupt.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "kernels/error.h"
#include "memory/joint_index.h"
#include "memory/list_settings.h"
#include "memory/memory_file_writer.h"
#include "runtime/resources.h"
#include "runtime/stored_memory.h"

namespace memlane {

namespace {

struct MemoryIndexOptions {
  std::string memory;
  std::string index = "ivf";
  std::string parameters;
  std::size_t threads = available_threads();
  bool each = false;
  bool quiet = false;
  bool json = false;
};

Lookup lookup_of(const MemoryIndexOptions& options) {
  Lookup lookup = Lookup::named(options.index);
  lookup.parameters = options.parameters;
  if (!lookup.has_lists()) {
    input_error(
        "--index {}: expected ivf or int8, whose lists serve every question; other indexes are stored by ingest",
        options.index);
  }
  ListSettings::of(lookup);
  return lookup;
}

/// Whether a document's stored index covers all of it already.
bool has_index(const StoredDocument& document, const Lookup& lookup) {
  return !document.indexes.blobs.empty() && is_index_of(lookup, document.indexes.blobs.front()) &&
         document.indexes.entries_covered == document.entries();
}

/// What is to be done to a file.
struct MemoryIndexPlan {
  std::vector<const StoredDocument*> alone;  ///< get lists of their own
  std::vector<std::uint32_t> together;       ///< get a joint index
  std::size_t entries = 0;                   ///< of both
  std::size_t joint_bytes = 0;               ///< that making the joint index takes, about
  std::size_t bytes = 0;                     ///< of all indexes, about

  bool empty() const { return alone.empty() && together.empty(); }
};

/// Documents that are read whole get an index together if there are several; it serves where all of them are asked.
MemoryIndexPlan plan_of(const MemoryFile& file, const MemoryIndexOptions& options, const Lookup& lookup) {
  std::vector<const StoredDocument*> whole, all;
  for (const StoredDocument& document : file.documents()) {
    if (document.dropped || document.windows.empty()) continue;
    all.push_back(&document);
    if (document.complete) whole.push_back(&document);
  }
  const EntryShape& shape = file.header().shape;
  const bool jointly = lookup.kind == Lookup::Kind::ivf && !options.each && whole.size() >= 2;
  MemoryIndexPlan plan;
  if (jointly) {
    std::size_t entries = 0;
    for (const StoredDocument* document : whole) {
      plan.together.push_back(document->info.id);
      entries += document->entries();
    }
    if (entries > std::numeric_limits<std::uint32_t>::max()) {
      input_error(
          "{}: expected at most {} tokens for an index over all documents together, found {}; index each by "
          "itself (--each)",
          file.path().string(), std::numeric_limits<std::uint32_t>::max(), entries);
    }
    const StoredJointIndex& stored = file.joint_index();
    if (std::ranges::equal(plan.together, stored.documents, {}, {}, &CoveredDocument::document) &&
        is_index_of(lookup, stored.blobs.front())) {
      plan.together.clear();
    } else {
      plan.entries = entries;
      plan.bytes = index_bytes(shape, lookup, entries);
      plan.joint_bytes = joint_index_making_bytes(shape, lookup, options.threads, entries);
    }
  }
  for (const StoredDocument* document : all) {
    if ((jointly && document->complete) || has_index(*document, lookup)) continue;
    plan.alone.push_back(document);
    plan.entries += document->entries();
    plan.bytes += index_bytes(shape, lookup, document->entries());
  }
  return plan;
}

/// Called with the entries of a document, or of all of them together, whose keys are in lists so far, by one thread at
/// a time. Nothing of them is stored if it throws.
using IndexProgress = std::function<void(std::size_t)>;

/// What tells `progress` how far the indexes of all memory layers and heads are, on the average.
Watch watch_of(const EntryShape& shape, const IndexProgress& progress) {
  return [indexes = shape.layers.size() * shape.kv_heads, done = std::size_t{0}, &progress](std::size_t more) mutable {
    done += more;
    progress(done / indexes);
  };
}

void store_indexes(CpuExec& exec, MemoryFileWriter& writer, const StoredDocument& document, const Lookup& lookup,
                   const IndexProgress& progress) {
  const MemoryFile& file = writer.stored();
  const DocumentMemory memory = load_document(exec, file, document, lookup, watch_of(file.header().shape, progress));
  writer.store_indexes(document.info.id, memory.indexed_entries(), memory.save_indexes());
}

void store_joint_index(CpuExec& exec, MemoryFileWriter& writer, const MemoryIndexPlan& plan, const Lookup& lookup,
                       const IndexProgress& progress) {
  const MemoryFile& file = writer.stored();
  const auto documents = load_documents(exec, file, plan.together, Lookup());  // without indexes of their own
  std::vector<const DocumentMemory*> pointers;
  for (const auto& document : documents) pointers.push_back(document.get());
  JointIndexMaker maker(exec, pointers, lookup, watch_of(file.header().shape, progress));
  writer.store_joint_index(plan.together, [&] { return maker.next(); });
}

int index(const MemoryIndexOptions& options) {
  interrupt_flag();
  const Lookup lookup = lookup_of(options);
  MemoryFileWriter writer = MemoryFileWriter::append_to(options.memory);
  const MemoryFile& file = writer.stored();
  const MemoryIndexPlan plan = plan_of(file, options, lookup);
  if (!plan.together.empty()) {
    writer.require_joint_indexes();
    require_memory(plan.joint_bytes, "an index over all documents together", "index each by itself (--each)");
  }
  require_disk(plan.bytes, options.memory, "the indexes");
  CpuExec exec(options.threads);
  std::size_t done = 0;
  std::size_t joint_documents = file.joint_index().documents.size();
  std::optional<Progress> progress;
  if (!plan.empty()) progress.emplace("indexing", 0, plan.entries, !options.quiet, "entries");
  bool interrupted = false;
  try {
    const IndexProgress goes_on = [&](std::size_t entries) {
      if (interrupt_flag()) throw Interrupted("stopped");
      progress->update(done + entries);
    };
    for (const StoredDocument* document : plan.alone) {
      goes_on(0);
      store_indexes(exec, writer, *document, lookup, goes_on);
      done += document->entries();
      progress->update(done);
    }
    if (!plan.together.empty()) {
      goes_on(0);
      store_joint_index(exec, writer, plan, lookup, goes_on);
      done = plan.entries;
      progress->update(done);
      joint_documents = plan.together.size();
    }
  } catch (const Interrupted&) {
    interrupted = true;
  }
  const double seconds = progress ? progress->seconds() : 0;
  progress.reset();
  if (options.json) {
    print_json({{"memory", options.memory},
                {"index", lookup.name()},
                {"documents", plan.alone.size() + plan.together.size()},
                {"joint_documents", joint_documents},
                {"entries", done},
                {"bytes", writer.commit().length - file.bytes()},
                {"seconds", seconds},
                {"interrupted", interrupted}});
  }
  if (interrupted) fmt::print(stderr, "memlane: stopped; what is indexed is kept, and the same command continues\n");
  return interrupted ? 1 : 0;
}

}  // namespace

Subcommand add_memory_index(CLI::App& memory) {
  CLI::App* app = memory.add_subcommand(
      "index",
      "Store key indexes of documents that were read without: of all together, or each by itself; nothing of them is "
      "computed again");
  const auto options = std::make_shared<MemoryIndexOptions>();
  app->add_option("memory,--memory", options->memory, "The memory file")->required();
  app->add_option("--index", options->index, "ivf or int8")->capture_default_str();
  app->add_option("--index-parameters", options->parameters, "chunk and lists, such as chunk=16384,lists=64");
  add_count(*app, "--threads", options->threads, "Threads to run on", {.least = 1, .most = 4096});
  app->add_flag("--each", options->each,
                "Lists of each document by itself, not of all together: for questions to some of them");
  app->add_flag("--quiet", options->quiet, "No progress");
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return index(*options); }};
}

}  // namespace memlane
