#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "apps/commands.h"
#include "apps/interrupt.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "kernels/error.h"
#include "memory/compaction.h"
#include "runtime/resources.h"

namespace memlane {

namespace {

struct CompactOptions {
  std::string memory;
  bool plan_only = false;
  bool quiet = false;
  bool json = false;
};

int run_compact(const CompactOptions& options) {
  interrupt_flag();
  std::uint64_t before = 0;
  std::uint64_t after = 0;
  bool gains = false, had_joint_index = false;
  {
    const MemoryFile file = MemoryFile::open(options.memory);
    before = file.bytes();
    gains = gains_from_compaction(file);
    after = gains ? compacted_bytes(file) : before;
    had_joint_index = !file.joint_index().empty();
  }
  if (!options.quiet) {
    fmt::print(stderr, "{}: {} now, {} without what is not needed any more; needs {} of disk meanwhile ({} free)\n",
               options.memory, bytes_text(before), bytes_text(after), bytes_text(gains ? after : 0),
               bytes_text(free_disk(options.memory)));
  }
  const bool works = gains && !options.plan_only;
  if (works) {
    require_disk(after, options.memory, "the compacted memory");
    Progress progress("copying", 0, after >> 20, !options.quiet && after >> 20 > 0, "MiB");
    compact(options.memory, {}, [&](std::uint64_t bytes) {
      if (interrupt_flag()) throw Interrupted(fmt::format("stopped; {} is as it was", options.memory));
      progress.update(std::min(bytes, after) >> 20);
    });
  } else if (!gains && !options.quiet) {
    fmt::print(stderr, "memlane: there is nothing to gain; the file is as it was\n");
  }
  if (gains && had_joint_index) {
    fmt::print(stderr, "memlane: the joint index is not copied; `memlane memory index {}` makes it again\n",
               options.memory);
  }
  if (options.json) {
    print_json({{"memory", options.memory},
                {"bytes_before", before},
                {"bytes_after", after},
                {"compacted", works}});
  }
  return 0;
}

}  // namespace

Subcommand add_memory_compact(CLI::App& memory) {
  CLI::App* app = memory.add_subcommand(
      "compact", "Write a memory file anew without dropped documents; those that stay get the ids 0, 1, 2, … anew");
  const auto options = std::make_shared<CompactOptions>();
  app->add_option("memory", options->memory, "The memory file")->required();
  app->add_flag("--plan", options->plan_only, "Only say what would be done");
  app->add_flag("--quiet", options->quiet, "No plan, no progress");
  app->add_flag("--json", options->json, "Print one JSON object");
  return {app, [options] { return run_compact(*options); }};
}

}  // namespace memlane
