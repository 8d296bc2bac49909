#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace memlane {

/// A way of reading that experiments compare; the same label has the same colour in every plot.
struct RunMethod {
  std::string label;               ///< what plots and tables call it
  std::string method;              ///< as --methods takes it
  std::string model;               ///< a key of RunFile::models
  std::vector<std::string> flags;  ///< further flags of the command
};

/// A method in an experiment, with what it changes there.
struct MethodUse {
  std::size_t method = 0;                     ///< index into RunFile::methods
  std::vector<std::size_t> lengths;           ///< tokens, ascending; the experiment's own unless the entry says others
  std::map<std::size_t, std::size_t> trials;  ///< length to trials, over the experiment's
};

enum class BenchKind { recall, perplexity, cost, tradeoff };
const char* name_of(BenchKind kind);

/// One set of plots.
struct RunExperiment {
  BenchKind kind = BenchKind::recall;
  std::string name;  ///< letters, digits and -; names of files begin with it
  std::string title;
  std::vector<std::string> notes;  ///< paragraphs above the plots
  std::vector<MethodUse> methods;
  std::vector<std::string> flags;  ///< further flags of the command
  // recall
  std::string task, filler;                                     ///< empty: the bench's own default
  std::string book;                                             ///< a key of RunFile::texts, or empty
  std::vector<double> depths;                                   ///< 0..1; empty: the bench's default
  std::map<std::size_t, std::vector<double>> depths_by_length;  ///< over `depths`
  std::optional<std::size_t> trials;
  std::map<std::size_t, std::size_t> trials_by_length;
  // perplexity
  std::vector<std::string> texts;  ///< keys of RunFile::texts
  std::string convention;
  std::optional<std::size_t> start, stride, targets;  ///< tokens
  std::optional<std::size_t> curve;                   ///< ranges of position
  bool together = false;  ///< all methods in one command, which then compares them (dynamic modes)
  // cost
  std::optional<std::size_t> decode;  ///< tokens to generate
  // tradeoff
  std::string cost;                  ///< name of the cost experiment
  std::vector<std::string> against;  ///< names of recall and perplexity experiments
};

/// A run file: which models, texts, methods and lengths to compare. JSON; unknown keys are errors.
struct RunFile {
  std::filesystem::path path;
  std::filesystem::path folder;  ///< of the file: relative paths in it start there, and commands run there
  std::string title;
  std::vector<std::string> notes;
  std::map<std::string, std::string> models, texts;  ///< key to path, as the file has it
  std::uint64_t seed = 1;
  std::optional<std::size_t> threads;
  std::vector<RunMethod> methods;
  std::vector<RunExperiment> experiments;
  nlohmann::json source;  ///< the whole file

  const RunExperiment* experiment(const std::string& name) const;
};

/// Throws InputError that names file and key, what was expected and what was found.
RunFile read_run_file(const std::filesystem::path& path);

/// Throws InputError, naming file and key, unless every model that a method uses is a model folder and every text that
/// is used a text.
void check_inputs(const RunFile& run);

}  // namespace memlane
