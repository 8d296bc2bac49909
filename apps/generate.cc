#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/documents.h"
#include "apps/generation.h"
#include "apps/interrupt.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "apps/progress.h"
#include "runtime/session.h"
#include "runtime/window_plan.h"

namespace memlane {

namespace {

struct GenerateOptions {
  ModelOptions model;
  std::string prompt;
  std::optional<std::string> file;
  bool quiet = false;
  GenerationOptions generation;
};

/// The file's text followed by the prompt, as one text.
std::string whole_prompt(const GenerateOptions& options) {
  require_utf8("--prompt", options.prompt);
  std::string text;
  if (options.file) text = open_text(*options.file).text();
  return text + options.prompt;
}

int generate_text(const GenerateOptions& options) {
  options.generation.sampler.check();
  CpuExec exec = options.model.make_exec();
  const ModelConfig config = read_model_config(options.model.model);
  const Tokenizer tokenizer = Tokenizer::open(options.model.model);
  const std::string text = whole_prompt(options);
  const std::vector<std::int32_t> ids = tokenizer.encode(text, true);

  require_vocabulary(tokenizer, config, options.model.model);
  const Lookup lookup = options.model.lookup(ids.size(), options.quiet);
  const MemorySettings settings = options.model.settings(config);
  const Precision precision = options.model.precision();
  if (lookup.has_index()) make_key_index(lookup, config.head_dim);  // refused before any work
  require_room(config, settings, precision, lookup, {ids.size() + options.generation.max_tokens, 0, 0},
               fmt::format("a prompt of {} tokens and {} more", ids.size(), options.generation.max_tokens),
               "use a shorter one, fewer --max-tokens or --mem-layers, or a smaller --window");
  const Model model = load_model(exec, options.model.model, precision, options.model.device_choice());
  Session session(exec, model, settings, lookup);
  session.set_stop_flag(&interrupt_flag());
  if (!options.quiet) fmt::print(stderr, "{}", session.device_plan());

  const bool is_long = ids.size() > settings.window;
  if (is_long && !options.quiet) {
    const WindowPlan plan = plan_windows(ids.size(), settings.window, settings.last_context_length);
    fmt::print(stderr, "{} tokens: {} windows of {} into memory (layers {}), the last {} stay local\n",
               count_text(ids.size()), plan.prefix.size(), settings.window, layers_text(settings.mem_layers),
               plan.tail.size());
    if (settings.mem_layers.empty())
      fmt::print(stderr, "no memory layers: only the last {} tokens are seen\n", plan.tail.size());
  }
  std::optional<Progress> progress;
  if (is_long) progress.emplace("prompt", 0, ids.size(), !options.quiet);
  session.set_progress([&](std::size_t done, std::size_t) {
    if (!progress) return;
    progress->update(done);
    if (done == ids.size()) progress.reset();
  });

  const bool json = options.generation.json;
  const Generated result = generate(session, model, tokenizer, ids, settings.last_context_length, options.generation,
                                    text.empty(), [&](std::string_view piece) {
                                      if (!json) print_text(piece);
                                    });
  if (json) {
    nlohmann::json report = to_json(result, ids.size());
    report["memory_entries"] = session.memory_length();
    print_json(report);
  } else {
    print_text("\n");
  }
  return result.stop == "interrupted" ? 1 : 0;
}

}  // namespace

Subcommand add_generate(CLI::App& program) {
  CLI::App* app = program.add_subcommand("generate", "Continue a prompt, a long file, or a long file and a prompt");
  const auto options = std::make_shared<GenerateOptions>();
  options->model.add_to(*app);
  app->add_option("--prompt", options->prompt, "The text to continue; it follows that of --file");
  app->add_option("--file", options->file, "A text file (UTF-8) of any length to read first");
  app->add_flag("--quiet", options->quiet, "No plan, no progress");
  options->generation.add_to(*app);
  return {app, [options] { return generate_text(*options); }};
}

}  // namespace memlane
