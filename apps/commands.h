#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace memlane {

/// Each adds one subcommand to the program. The returned function runs it once its options are parsed, and returns the
/// exit code.
using Command = std::function<int()>;
struct Subcommand {
  CLI::App* app;
  Command run;
};

Subcommand add_ingest(CLI::App& program);
Subcommand add_ask(CLI::App& program);
Subcommand add_generate(CLI::App& program);
Subcommand add_info(CLI::App& program);
Subcommand add_logits(CLI::App& program);
Subcommand add_rope(CLI::App& program);
/// Below `memlane bench`.
Subcommand add_bench_recall(CLI::App& bench);
Subcommand add_bench_perplexity(CLI::App& bench);
Subcommand add_bench_cost(CLI::App& bench);
Subcommand add_bench_speed(CLI::App& bench);
Subcommand add_bench_run(CLI::App& bench);
Subcommand add_bench_distraction(CLI::App& bench);
Subcommand add_bench_index(CLI::App& bench);
/// Below `memlane memory`.
Subcommand add_memory_list(CLI::App& memory);
Subcommand add_memory_drop(CLI::App& memory);
Subcommand add_memory_merge(CLI::App& memory);
Subcommand add_memory_compact(CLI::App& memory);
Subcommand add_memory_index(CLI::App& memory);

}  // namespace memlane
