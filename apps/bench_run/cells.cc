#include "apps/bench_run/cells.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "kernels/error.h"
#include "memory/hash.h"
#include "memory/mapped_file.h"

namespace memlane {

namespace {

/// A label as part of a file's name.
std::string slug(const std::string& text) {
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.';
    if (plain) {
      result += c;
    } else if (!result.empty() && result.back() != '-') {
      result += '-';
    }
  }
  while (!result.empty() && result.back() == '-') result.pop_back();
  return result.empty() ? "method" : result;
}

std::optional<std::size_t> trials_of(const RunExperiment& experiment, const MethodUse& use, std::size_t length) {
  if (const auto own = use.trials.find(length); own != use.trials.end()) return own->second;
  if (const auto all = experiment.trials_by_length.find(length); all != experiment.trials_by_length.end()) {
    return all->second;
  }
  return experiment.trials;
}

class CommandLine {
 public:
  explicit CommandLine(std::vector<std::string> words) : words_(std::move(words)) {}
  CommandLine& add(const std::string& flag, const std::string& value) {
    if (!value.empty()) words_.insert(words_.end(), {flag, value});
    return *this;
  }
  CommandLine& add(const std::string& flag, std::optional<std::size_t> value) {
    return value ? add(flag, std::to_string(*value)) : *this;
  }
  CommandLine& add(const std::vector<std::string>& words) {
    words_.insert(words_.end(), words.begin(), words.end());
    return *this;
  }
  std::vector<std::string> words() const { return words_; }

 private:
  std::vector<std::string> words_;
};

/// Where the targets begin: given, or at the longest length, so that every length has the same targets.
std::optional<std::size_t> start_of(const RunExperiment& experiment) {
  if (experiment.start || experiment.convention != "stride") return experiment.start;
  std::size_t longest = 0;
  for (const MethodUse& use : experiment.methods) longest = std::max(longest, use.lengths.back());
  return longest;
}

std::vector<std::string> command_of(const RunFile& run, const RunCell& cell, const MethodUse& use) {
  const RunExperiment& experiment = run.experiments[cell.experiment];
  const RunMethod& first = run.methods[cell.methods.front()];
  std::vector<std::string> methods;
  for (const std::size_t method : cell.methods) methods.push_back(run.methods[method].method);
  CommandLine line({"bench", name_of(experiment.kind)});
  line.add("--model", run.models.at(first.model)).add("--methods", fmt::format("{}", fmt::join(methods, ",")));
  // The convention memory varies what is in memory, the others what is read.
  line.add(experiment.convention == "memory" ? "--memory" : "--lengths", std::to_string(cell.length));
  if (experiment.kind == BenchKind::recall) {
    line.add("--task", experiment.task).add("--filler", experiment.filler);
    if (!cell.text.empty()) line.add("--book", run.texts.at(cell.text));
    const auto own = experiment.depths_by_length.find(cell.length);
    const auto& depths = own == experiment.depths_by_length.end() ? experiment.depths : own->second;
    line.add("--depths", fmt::format("{}", fmt::join(depths, ",")));
    line.add("--trials", trials_of(experiment, use, cell.length)).add("--seed", std::to_string(run.seed));
  } else if (experiment.kind == BenchKind::perplexity) {
    line.add("--text", run.texts.at(cell.text)).add("--convention", experiment.convention);
    line.add("--start", start_of(experiment)).add("--stride", experiment.stride).add("--targets", experiment.targets);
    line.add("--curve", experiment.curve);
  } else {
    line.add("--decode", experiment.decode);
  }
  line.add("--threads", run.threads).add(experiment.flags).add(first.flags).add({"--json", "--quiet"});
  return line.words();
}

/// The cells of one experiment at one length.
void expand_length(const RunFile& run, std::size_t index, std::size_t length, std::vector<RunCell>& cells) {
  const RunExperiment& experiment = run.experiments[index];
  const bool over_texts = experiment.kind == BenchKind::perplexity;
  const std::vector<std::string> texts = over_texts ? experiment.texts : std::vector<std::string>{experiment.book};
  for (const MethodUse& use : experiment.methods) {
    if (std::find(use.lengths.begin(), use.lengths.end(), length) == use.lengths.end()) continue;
    for (const std::string& text : texts) {
      RunCell cell;
      cell.experiment = index;
      cell.length = length;
      cell.text = text;
      if (experiment.together) {
        for (const MethodUse& each : experiment.methods) cell.methods.push_back(each.method);
      } else {
        cell.methods = {use.method};
      }
      const std::string who = experiment.together ? "together" : slug(run.methods[use.method].label);
      cell.name = fmt::format("{}--{}--{}{}", experiment.name, who, length, over_texts ? "--" + text : "");
      cell.command = command_of(run, cell, use);
      cells.push_back(std::move(cell));
    }
    if (experiment.together) break;
  }
}

std::string model_fingerprint_of(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool read = name == "config.json" || name == "tokenizer.model" || name == "model.safetensors.index.json" ||
                      entry.path().extension() == ".safetensors";
    if (read) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  Fingerprint fingerprint;
  for (const auto& file : files) {
    fingerprint.add(file.filename().string()).add(MappedFile(file, "model file").bytes());
  }
  return fingerprint.hex();
}

}  // namespace

std::vector<RunCell> expand(const RunFile& run) {
  std::vector<RunCell> cells;
  for (std::size_t e = 0; e < run.experiments.size(); ++e) {
    std::set<std::size_t> lengths;
    for (const MethodUse& use : run.experiments[e].methods) lengths.insert(use.lengths.begin(), use.lengths.end());
    for (const std::size_t length : lengths) expand_length(run, e, length, cells);
  }
  std::set<std::string> names;
  for (const RunCell& cell : cells) {
    if (names.insert(cell.name).second) continue;
    input_error(
        "{}: experiment {}: the label '{}' differs from another only in characters that names of files cannot "
        "have; choose another label",
        run.path.string(), run.experiments[cell.experiment].name, run.methods[cell.methods.front()].label);
  }
  return cells;
}

void take_fingerprints(const RunFile& run, std::vector<RunCell>& cells) {
  std::map<std::string, std::string> models;
  std::map<std::string, std::string> texts;
  for (RunCell& cell : cells) {
    const std::string& model = run.methods[cell.methods.front()].model;
    if (!models.contains(model)) models[model] = model_fingerprint_of(run.folder / run.models.at(model));
    cell.inputs["model"] = models[model];
    if (cell.text.empty()) continue;
    if (!texts.contains(cell.text)) {
      Fingerprint fingerprint;
      fingerprint.add(MappedFile(run.folder / run.texts.at(cell.text), "text").bytes());
      texts[cell.text] = fingerprint.hex();
    }
    cell.inputs["text"] = texts[cell.text];
  }
}

}  // namespace memlane
