#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/memory_budget.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "memory/compaction.h"
#include "memory/document_choice.h"
#include "memory/memory_file_writer.h"
#include "runtime/resources.h"

namespace memlane {

namespace {

struct ListOptions {
  std::string memory;
  bool json = false;
};

struct DropOptions {
  std::string memory;
  std::vector<std::string> documents;
  bool json = false;
};

nlohmann::json describe(const StoredDocument& document) {
  return {{"id", document.info.id},
          {"name", document.info.name},
          {"tokens", document.info.tokens},
          {"tokens_in_memory", document.entries()},
          {"text_bytes", document.info.text_bytes},
          {"bytes", document.file_bytes},
          {"complete", document.complete}};
}

int list(const ListOptions& options) {
  const MemoryFile file = MemoryFile::open(options.memory);
  nlohmann::json documents = nlohmann::json::array();
  std::string table = fmt::format("{:>4}  {:>12}  {:>10}  {:<8}  {}\n", "id", "tokens", "bytes", "complete", "name");
  for (const StoredDocument& document : file.documents()) {
    if (document.dropped) continue;
    documents.push_back(describe(document));
    const std::string complete = document.complete
                                     ? "yes"
                                     : fmt::format("{:.0f} %", 100.0 * static_cast<double>(document.entries()) /
                                                                   static_cast<double>(document.info.tokens));
    table += fmt::format("{:>4}  {:>12}  {:>10}  {:<8}  {}\n", document.info.id, count_text(document.info.tokens),
                         bytes_text(document.file_bytes), complete, one_line(document.info.name));
  }
  const StoredJointIndex& joint = file.joint_index();
  const std::uint64_t wasted = wasted_bytes(file);
  if (options.json) {
    print_json({{"memory", options.memory},
                {"bytes", file.bytes()},
                {"compacted_bytes", compacted_bytes(file)},
                {"evict", eviction_setting(file.header())},
                {"joint_documents", joint.documents.size()},
                {"joint_index_bytes", joint.file_bytes},
                {"documents", documents}});
    return 0;
  }
  print_text(documents.empty() ? "no documents\n" : table);
  if (file.header().settings.contains(kEviction)) {
    print_text(fmt::format("read with evict: {}\n", one_line(eviction_setting(file.header()))));
  }
  if (!joint.empty()) {
    print_text(
        fmt::format("joint index over {} documents, {}\n", joint.documents.size(), bytes_text(joint.file_bytes)));
  }
  if (wasted > 0) {
    print_text(fmt::format("{} of {} belong to nothing any more; memlane memory compact gives them back\n",
                           bytes_text(wasted), bytes_text(file.bytes())));
  }
  return 0;
}

int drop(const DropOptions& options) {
  MemoryFileWriter writer = MemoryFileWriter::append_to(options.memory);
  const std::vector<std::uint32_t> ids = choose_documents(writer.stored(), "drop", options.documents);
  writer.drop_documents(ids);
  nlohmann::json dropped = nlohmann::json::array();
  std::string lines;
  for (const std::uint32_t id : ids) {
    const StoredDocument& document = writer.stored().documents()[id];
    dropped.push_back(describe(document));
    lines +=
        fmt::format("dropped {} '{}', {} tokens\n", id, one_line(document.info.name), count_text(document.info.tokens));
  }
  const MemoryFile after = MemoryFile::open_heads(options.memory);
  const std::uint64_t to_gain = wasted_bytes(after);
  if (options.json) {
    print_json({{"memory", options.memory}, {"dropped", dropped}, {"bytes_to_gain", to_gain}});
  } else {
    print_text(lines + fmt::format("memlane memory compact gives back {}\n", bytes_text(to_gain)));
  }
  if (!writer.stored().joint_index().empty() && after.joint_index().empty()) {
    fmt::print(stderr,
               "memlane: the joint index covered them and counts no longer; `memlane memory index {}` makes another\n",
               options.memory);
  }
  return 0;
}

}  // namespace

Subcommand add_memory_list(CLI::App& memory) {
  CLI::App* app = memory.add_subcommand("list", "List the documents of a memory file");
  const auto options = std::make_shared<ListOptions>();
  app->add_option("memory,--memory", options->memory, "The memory file")->required();
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return list(*options); }};
}

Subcommand add_memory_drop(CLI::App& memory) {
  CLI::App* app =
      memory.add_subcommand("drop", "Drop documents from a memory file; their bytes stay until the file is compacted");
  const auto options = std::make_shared<DropOptions>();
  app->add_option("memory", options->memory, "The memory file")->required();
  app->add_option("documents", options->documents, "Names or ids; id:3 and name:3 if it could be both")->required();
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return drop(*options); }};
}

}  // namespace memlane
