#include "apps/bench_methods.h"

#include <fmt/format.h>

#include <algorithm>
#include <new>

#include "apps/output.h"
#include "memory/key_index.h"
#include "runtime/resources.h"
#include "runtime/session.h"
#include "runtime/stored_memory.h"
#include "runtime/text_reader.h"

namespace memlane {

void add_methods(CLI::App& app, std::vector<std::string>& methods) {
  app.add_option("--methods", methods,
                 "Ways of reading, separated by commas: memory (memory layers), none (the end of the text in one "
                 "window), yarn and other RoPE scalings over the whole text, memory+yarn:factor=4:window=8192, ...; "
                 "numbers of a list are separated by ';', as in 'longrope:short-factor=1;1:long-factor=2;4' "
                 "(docs/evaluation.md)")
      ->delimiter(',')
      ->capture_default_str();
}

std::vector<Method> parse_methods(const std::vector<std::string>& texts) {
  std::vector<Method> methods;
  for (const std::string& text : texts) {
    if (std::count(texts.begin(), texts.end(), text) > 1) {
      input_error("--methods: expected each method once, found {} twice", text);
    }
    methods.push_back(Method::parse(text));
  }
  return methods;
}

void check_lengths(std::string_view option, const std::vector<std::size_t>& lengths) {
  constexpr std::size_t kMostTokens = std::size_t{1} << 23;
  for (const std::size_t length : lengths) {
    if (length < 2 || length > kMostTokens) {
      input_error("{} {}: expected 2 to {} tokens", option, length, kMostTokens);
    }
  }
}

void require_method_room(const ModelConfig& config, const MethodSettings& settings, DType compute, const Lookup& lookup,
                         std::size_t length, std::string_view method) {
  const std::size_t indexes = index_bytes(entry_shape(config, settings.memory), lookup, length);
  require_memory(reading_bytes(config, settings.memory, compute, length) + indexes,
                 fmt::format("method {} at {} tokens", method, length), "use shorter lengths or a smaller window");
}

void require_question_room(const MethodSettings& settings, std::size_t question, std::size_t room, std::size_t length,
                           std::string_view method) {
  try {
    require_room_in_window(settings.memory, question, room);
  } catch (const InputError& error) {
    input_error("method {} at {} tokens: {}", method, length, error.what());
  }
}

void require_lookup(const ModelConfig& config, const Lookup& lookup) {
  if (lookup.has_index()) make_key_index(lookup, config.head_dim);
}

bool run_cell_safely(const std::string& cell, bool any_finished, const std::function<bool()>& work) {
  try {
    return work();
  } catch (const Interrupted&) {
    return false;
  } catch (const InputError& error) {
    if (!any_finished) input_error("{}: {}", cell, error.what());
    print_problem(fmt::format("{}: {}", cell, error.what()));
  } catch (const std::bad_alloc&) {
    print_problem(fmt::format("{}: out of memory; use shorter lengths or a smaller window", cell));
  } catch (const std::exception& error) {
    print_problem(fmt::format("{}: {}", cell, error.what()));
  }
  return false;
}

std::string cell_name(const Method& method, std::size_t length) {
  return fmt::format("method {} at {} tokens", method.text(), length);
}

}  // namespace memlane
