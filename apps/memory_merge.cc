#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/commands.h"
#include "apps/interrupt.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "kernels/error.h"
#include "memory/memory_file_writer.h"
#include "runtime/resources.h"

namespace memlane {

namespace {

struct MergeOptions {
  std::string into;
  std::vector<std::string> sources;
  bool same_names = false;
  bool plan_only = false;
  bool quiet = false;
  bool json = false;
};

/// A document of a source.
struct MergeJob {
  const MemoryFile* file;
  const StoredDocument* document;
  std::uint64_t bytes = 0;
  bool there = false;  ///< the destination has it, or will from a source before
  bool copied = false;
};

class Merge {
 public:
  explicit Merge(MergeOptions options) : options_(std::move(options)) {}
  int run();

 private:
  void open_files();
  void check_meaning() const;
  void plan(const StoredDocument& document, const MemoryFile& source);
  bool copy_all();
  nlohmann::json report(bool interrupted) const;

  MergeOptions options_;
  std::deque<MemoryFile> sources_;
  std::optional<MemoryFileWriter> writer_;
  std::vector<const StoredDocument*> there_;  ///< what the destination will have
  std::vector<MergeJob> jobs_;
  std::uint64_t bytes_ = 0;  ///< to be copied
};

void Merge::open_files() {
  std::error_code ignored;
  for (const std::string& source : options_.sources) {
    if (std::filesystem::equivalent(source, options_.into, ignored)) {
      input_error("{}: expected other files than the one to merge into, found that one; leave it out", source);
    }
    sources_.push_back(MemoryFile::open(source));
  }
  if (!std::filesystem::exists(std::filesystem::symlink_status(options_.into, ignored))) return;
  writer_.emplace(MemoryFileWriter::append_to(options_.into));
  for (const StoredDocument& document : writer_->stored().documents()) {
    if (!document.dropped) there_.push_back(&document);
  }
}

/// Entries are only put side by side if they mean the same.
void Merge::check_meaning() const {
  const MemoryFileHeader& header = writer_ ? writer_->stored().header() : sources_.front().header();
  const std::string& name = writer_ ? options_.into : options_.sources.front();
  for (const MemoryFile& source : sources_) {
    const std::string found = differences(source.header(), header);
    if (found.empty()) continue;
    input_error("{}: made with another model or other settings than {}, so they cannot be merged: {} for that",
                source.path().string(), name, found);
  }
}

void Merge::plan(const StoredDocument& document, const MemoryFile& source) {
  const DocumentInfo& info = document.info;
  if (!document.complete) {
    input_error("{}: only {} of {} tokens of '{}' have been read; finish reading it with ingest, or drop it",
                source.path().string(), document.entries(), info.tokens, info.name);
  }
  MergeJob job{&source, &document};
  for (const StoredDocument* other : there_) {
    const bool same_text = !info.text_fingerprint.empty() && other->info.text_fingerprint == info.text_fingerprint &&
                           other->info.tokens == info.tokens;
    if (same_text && !other->complete) {
      input_error("{}: holds '{}' too, of which only {} of {} tokens have been read; finish reading it, or drop it",
                  options_.into, other->info.name, other->entries(), info.tokens);
    }
    job.there = job.there || same_text;
  }
  const bool same_name = std::any_of(there_.begin(), there_.end(),
                                     [&](const StoredDocument* other) { return other->info.name == info.name; });
  if (!job.there && same_name && !options_.same_names) {
    input_error(
        "{}: there are two texts of the name '{}'; drop one of them, or give --same-names and tell them apart by their "
        "ids",
        source.path().string(), info.name);
  }
  if (!job.there) {
    job.bytes = MemoryFileWriter::copied_bytes(document, source.header().shape);
    bytes_ += job.bytes;
    there_.push_back(&document);
  }
  jobs_.push_back(job);
}

/// Returns false if it was stopped; every document is then in the destination whole, or not at all.
bool Merge::copy_all() {
  if (!writer_) writer_.emplace(MemoryFileWriter::create(options_.into, sources_.front().header()));
  Progress progress("copying", 0, bytes_ >> 20, !options_.quiet && bytes_ >> 20 > 0, "MiB");
  std::uint64_t before = 0;
  try {
    for (MergeJob& job : jobs_) {
      if (job.there) continue;
      writer_->copy_document(*job.document, [&](std::uint64_t bytes) {
        if (interrupt_flag()) throw Interrupted("stopped");
        progress.update((before + bytes) >> 20);
      });
      before += job.bytes;
      job.copied = true;
    }
  } catch (const Interrupted&) {
    writer_->discard_if_empty();
    return false;
  } catch (...) {
    writer_->discard_if_empty();
    throw;
  }
  return true;
}

nlohmann::json Merge::report(bool interrupted) const {
  nlohmann::json documents = nlohmann::json::array();
  for (const MergeJob& job : jobs_) {
    documents.push_back({{"source", job.file->path().string()},
                         {"name", job.document->info.name},
                         {"tokens", job.document->info.tokens},
                         {"bytes", job.bytes},
                         {"there_already", job.there},
                         {"copied", job.copied}});
  }
  return {{"into", options_.into}, {"documents", documents}, {"bytes", bytes_}, {"interrupted", interrupted}};
}

int Merge::run() {
  interrupt_flag();
  open_files();
  check_meaning();
  for (const MemoryFile& source : sources_) {
    for (const StoredDocument& document : source.documents()) {
      if (!document.dropped) plan(document, source);
    }
  }
  if (!options_.quiet) {
    for (const MergeJob& job : jobs_) {
      fmt::print(stderr, "  {} '{}': {} tokens, {}\n", job.file->path().string(), one_line(job.document->info.name),
                 count_text(job.document->info.tokens), job.there ? "in memory already" : bytes_text(job.bytes));
    }
    fmt::print(stderr, "{}: needs {} of disk ({} free)\n", options_.into, bytes_text(bytes_),
               bytes_text(free_disk(options_.into)));
  }
  require_disk(bytes_, options_.into, "the merged memory");
  const bool interrupted = bytes_ > 0 && !options_.plan_only && !copy_all();
  const bool copied = std::any_of(jobs_.begin(), jobs_.end(), [](const MergeJob& job) { return job.copied; });
  const bool leaves_joint_index = std::any_of(sources_.begin(), sources_.end(),
                                              [](const MemoryFile& source) { return !source.joint_index().empty(); });
  if (copied && leaves_joint_index) {
    fmt::print(stderr, "memlane: joint indexes are not copied; `memlane memory index {}` makes one\n", options_.into);
  }
  if (options_.json) print_json(report(interrupted));
  if (!interrupted) return 0;
  fmt::print(stderr, "memlane: stopped; every document is there whole or not at all, and the same command continues\n");
  return 1;
}

}  // namespace

Subcommand add_memory_merge(CLI::App& memory) {
  CLI::App* app = memory.add_subcommand(
      "merge", "Copy the documents of memory files into another, new or not; nothing is read again");
  const auto options = std::make_shared<MergeOptions>();
  app->add_option("into", options->into, "The memory file to make or to add to")->required();
  app->add_option("sources", options->sources, "Memory files of the same model and settings; they are never changed")
      ->required();
  app->add_flag("--same-names", options->same_names, "Let different documents have the same name");
  app->add_flag("--plan", options->plan_only, "Only say what would be done");
  app->add_flag("--quiet", options->quiet, "No plan, no progress");
  app->add_flag("--json", options->json, "Print one JSON object about what was done");
  return {app, [options] { return Merge(*options).run(); }};
}

}  // namespace memlane
