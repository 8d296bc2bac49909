#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/commands.h"
#include "apps/count_option.h"
#include "apps/interrupt.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "kernels/error.h"
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

int index(const MemoryIndexOptions& options) {
  interrupt_flag();
  const Lookup lookup = lookup_of(options);
  MemoryFileWriter writer = MemoryFileWriter::append_to(options.memory);
  const MemoryFile& file = writer.stored();
  std::vector<const StoredDocument*> wanted;
  std::size_t entries = 0, bytes = 0;
  for (const StoredDocument& document : file.documents()) {
    if (document.dropped || document.windows.empty() || has_index(document, lookup)) continue;
    wanted.push_back(&document);
    entries += document.entries();
    bytes += index_bytes(file.header().shape, lookup, document.entries());
  }
  require_disk(bytes, options.memory, "the indexes");
  CpuExec exec(options.threads);
  std::size_t done = 0;
  bool interrupted = false;
  std::optional<Progress> progress;
  if (!wanted.empty()) progress.emplace("indexing", 0, entries, !options.quiet, "entries");
  for (const StoredDocument* document : wanted) {
    interrupted = interrupt_flag();
    if (interrupted) break;
    const DocumentMemory memory = load_document(exec, file, *document, lookup);
    writer.store_indexes(document->info.id, memory.indexed_entries(), memory.save_indexes());
    done += memory.entries();
    progress->update(done);
  }
  const double seconds = progress ? progress->seconds() : 0;
  progress.reset();
  if (options.json) {
    print_json({{"memory", options.memory},
                {"index", lookup.name()},
                {"documents", wanted.size()},
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
      "index", "Store key indexes of documents that were read without; nothing of them is computed again");
  const auto options = std::make_shared<MemoryIndexOptions>();
  app->add_option("memory,--memory", options->memory, "The memory file")->required();
  app->add_option("--index", options->index, "ivf or int8")->capture_default_str();
  app->add_option("--index-parameters", options->parameters, "chunk and lists, such as chunk=16384,lists=64");
  add_count(*app, "--threads", options->threads, "Threads to run on", {.least = 1, .most = 4096});
  app->add_flag("--quiet", options->quiet, "No progress");
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return index(*options); }};
}

}  // namespace memlane
