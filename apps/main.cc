// The memlane command. Exit codes: 0 done; 1 stopped or failed; 2 something the user can put right.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <csignal>
#include <cstdio>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/output.h"
#include "kernels/error.h"
#include "memory/lost_pages.h"

namespace memlane {
namespace {

constexpr int kFailed = 1;
constexpr int kBadInput = 2;

int fail(int code, const std::string& message) {
  print_problem(message);
  return code;
}

/// CLI11's messages, with the way to the help.
std::string usage_message(const CLI::ParseError& error, const CLI::App& program) {
  std::string name = "memlane";
  const CLI::App* last = &program;
  for (; !last->get_subcommands().empty(); name += " " + last->get_name()) last = last->get_subcommands().front();
  const std::vector<std::string> unknown = last->remaining();
  const std::vector<const CLI::App*> known = last->get_subcommands([](const CLI::App*) { return true; });
  if (!known.empty() && !unknown.empty()) {
    std::vector<std::string> names;
    for (const CLI::App* each : known) names.push_back(each->get_name());
    return fmt::format("{}: expected one of {} (see {} --help)", unknown.front(), fmt::join(names, ", "), name);
  }
  return fmt::format("{} (see {} --help)", error.what(), name);
}

int run(int argc, char** argv) {
  CLI::App program("memlane reads documents far longer than a Llama model's context and answers from them.", "memlane");
  program.set_version_flag("--version", MEMLANE_VERSION);
  program.require_subcommand(1);
  program.failure_message(CLI::FailureMessage::simple);
  CLI::App& bench = *program.add_subcommand("bench", "Measure a model");
  bench.require_subcommand(1);
  CLI::App& memory = *program.add_subcommand("memory", "Look after the documents in memory files");
  memory.require_subcommand(1);
  const Subcommand commands[] = {
      add_ingest(program),      add_ask(program),          add_generate(program),        add_logits(program),
      add_rope(program),        add_info(program),         add_bench_recall(bench),      add_bench_perplexity(bench),
      add_bench_cost(bench),    add_bench_run(bench),      add_bench_distraction(bench), add_bench_speed(bench),
      add_bench_index(bench),   add_memory_index(memory),  add_memory_list(memory),      add_memory_drop(memory),
      add_memory_merge(memory), add_memory_compact(memory)};
  try {
    program.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help, --version
    program.exit(request);
    std::cout.flush();
    if (!std::cout) input_error("standard output: cannot write");
    return 0;
  } catch (const CLI::ParseError& error) {
    return fail(kBadInput, usage_message(error, program));
  }
  for (const Subcommand& command : commands) {
    if (command.app->parsed()) return command.run();
  }
  return kFailed;
}

}  // namespace
}  // namespace memlane

int main(int argc, char** argv) {
  using namespace memlane;
  std::signal(SIGXFSZ, SIG_IGN);  // writing past a file size limit is then an error like a full disk
  report_lost_pages();
  try {
    return run(argc, argv);
  } catch (const InputError& error) {
    return fail(kBadInput, error.what());
  } catch (const Interrupted& error) {
    return fail(kFailed, error.what());
  } catch (const DeviceError& error) {
    return fail(kFailed, error.what());
  } catch (const std::bad_alloc&) {
    return fail(kFailed, "out of memory; use a smaller --window, fewer --mem-layers or a smaller --mem-dtype");
  } catch (const std::exception& error) {
    return fail(kFailed, fmt::format("internal error, please report it: {}", error.what()));
  }
}
