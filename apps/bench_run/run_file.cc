#include "apps/bench_run/run_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "apps/bench_run/run_object.h"
#include "apps/documents.h"
#include "kernels/error.h"
#include "runtime/checkpoint.h"
#include "runtime/method.h"
#include "runtime/model_config.h"
#include "runtime/strict_json.h"

namespace memlane {

namespace {

using nlohmann::json;

constexpr BenchKind kKinds[] = {BenchKind::recall, BenchKind::perplexity, BenchKind::cost, BenchKind::tradeoff};
constexpr std::size_t kMostEntries = 1000;

std::map<std::string, std::string> read_paths(RunObject& object, const std::string& key) {
  std::map<std::string, std::string> paths;
  if (!object.has(key)) return paths;
  const json& value = object.at(key);
  if (!value.is_object()) object.fail(object.place(key), "an object of names and paths", value);
  for (const auto& [name, path] : value.items()) {
    object.checked_name(name, object.place(key));
    paths[name] = object.checked_text(path, object.place(key) + "." + name);
  }
  return paths;
}

/// The entries of an array of objects.
template <class Read>
void read_list(RunObject& object, const std::string& key, const Read& read) {
  const json& value = object.at(key);
  if (!value.is_array() || value.empty() || value.size() > kMostEntries) {
    object.fail(object.place(key), fmt::format("an array of 1 to {} entries", kMostEntries), value);
  }
  for (std::size_t i = 0; i < value.size(); ++i) read(value[i], fmt::format("{}[{}]", object.place(key), i));
}

template <class Map>
std::string keys_of(const Map& map) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : map) keys.push_back(key);
  return keys.empty() ? "none" : fmt::format("{}", fmt::join(keys, ", "));
}

void require_key(const RunObject& object, const std::string& place, const std::map<std::string, std::string>& known,
                 const std::string& name, const std::string& what) {
  if (!known.contains(name)) object.fail(place, fmt::format("one of {} ({})", what, keys_of(known)), name);
}

RunMethod read_method(const RunFile& run, const json& value, const std::string& where) {
  RunObject object(value, run.path, where);
  RunMethod method;
  method.label = object.text("label");
  method.method = object.text_or("method", method.label);
  const std::string only = run.models.size() == 1 ? run.models.begin()->first : "";
  method.model = only.empty() ? object.text("model") : object.text_or("model", only);
  require_key(object, object.place("model"), run.models, method.model, "models");
  try {
    Method::parse(method.method);
  } catch (const InputError& error) {
    input_error("{}: {}: {}", run.path.string(), object.place("method"), error.what());
  }
  method.flags = object.texts_or_none("flags");
  for (const RunMethod& other : run.methods) {
    if (other.label == method.label) object.fail(object.place("label"), "a label of its own", method.label);
  }
  object.finish();
  return method;
}

std::size_t length_of(const RunObject& object, const std::string& place, const std::string& text) {
  std::size_t length = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
  if (error != std::errc() || end != text.data() + text.size() || length == 0) {
    object.fail(place, "lengths in tokens as keys", text);
  }
  return length;
}

/// {"2048": VALUE, "8192": VALUE}: what some lengths have of their own. read: of a value and its place.
template <class Read>
void read_by_length(RunObject& object, const std::string& key, const Read& read) {
  if (!object.has(key)) return;
  const json& value = object.at(key);
  if (!value.is_object()) object.fail(object.place(key), "an object with lengths as keys", value);
  for (const auto& [length, each] : value.items()) {
    read(length_of(object, object.place(key), length), each, object.place(key) + "." + length);
  }
}

std::map<std::size_t, std::size_t> read_trials(RunObject& object) {
  std::map<std::size_t, std::size_t> trials;
  read_by_length(object, "trials", [&](std::size_t length, const json& count, const std::string& place) {
    trials[length] = object.checked_count(count, place, 1);
  });
  return trials;
}

std::size_t method_named(const RunFile& run, const RunObject& object, const std::string& label,
                         const std::string& place) {
  for (std::size_t i = 0; i < run.methods.size(); ++i) {
    if (run.methods[i].label == label) return i;
  }
  object.fail(place, "the label of an entry of methods", label);
}

MethodUse read_use(const RunFile& run, const RunExperiment& experiment, const std::vector<std::size_t>& lengths,
                   const json& value, const std::string& where) {
  if (value.is_string()) {
    return read_use(run, experiment, lengths, json{{"label", value}}, where);
  }
  RunObject object(value, run.path, where);
  MethodUse use;
  use.method = method_named(run, object, object.text("label"), object.place("label"));
  use.lengths = object.has("lengths") ? object.counts("lengths", 1) : lengths;
  if (experiment.kind == BenchKind::recall) use.trials = read_trials(object);
  for (const MethodUse& other : experiment.methods) {
    if (other.method == use.method) object.fail(where, "each method once", run.methods[use.method].label);
  }
  object.finish();
  return use;
}

/// One of the names that a bench's flag takes; empty if the key is not there.
std::string choice(RunObject& object, const std::string& key, const std::vector<std::string>& names) {
  const std::string text = object.text_or(key, "");
  if (!text.empty() && std::find(names.begin(), names.end(), text) == names.end()) {
    object.fail(object.place(key), fmt::format("one of {}", fmt::join(names, ", ")), text);
  }
  return text;
}

void read_recall(const RunFile& run, RunObject& object, RunExperiment& experiment) {
  experiment.task = choice(object, "task", {"passkey", "multikey", "keyvalue", "needle"});
  experiment.filler = choice(object, "filler", {"book", "repeated"});
  experiment.book = object.text_or("book", "");
  if (!experiment.book.empty()) require_key(object, object.place("book"), run.texts, experiment.book, "texts");
  if (object.has("depths")) experiment.depths = object.shares("depths");
  read_by_length(object, "depths_by_length", [&](std::size_t length, const json& depths, const std::string& place) {
    experiment.depths_by_length[length] = object.checked_shares(depths, place);
  });
  if (object.has("trials") && object.at("trials").is_object()) {
    experiment.trials_by_length = read_trials(object);
  } else {
    experiment.trials = object.count_if_there("trials", 1);
  }
}

void read_perplexity(const RunFile& run, RunObject& object, RunExperiment& experiment) {
  experiment.texts = object.texts_or_none("texts");
  if (experiment.texts.empty()) object.fail(object.place("texts"), "names of texts", json::array());
  std::set<std::string> seen;
  for (const std::string& text : experiment.texts) {
    require_key(object, object.place("texts"), run.texts, text, "texts");
    if (!seen.insert(text).second) object.fail(object.place("texts"), "each text once", text);
  }
  object.text("convention");  // must be there
  experiment.convention = choice(object, "convention", {"memory", "stride", "one-pass", "token-by-token", "recompute"});
  experiment.start = object.count_if_there("start", 0);
  experiment.stride = object.count_if_there("stride", 1);
  experiment.targets = object.count_if_there("targets", 1);
  experiment.curve = object.count_if_there("curve", 1);
  experiment.together = object.flag("together");
  for (const MethodUse& use : experiment.methods) {
    const RunMethod& method = run.methods[use.method];
    const RunMethod& first = run.methods[experiment.methods.front().method];
    const bool alike =
        method.model == first.model && method.flags == first.flags && use.lengths == experiment.methods.front().lengths;
    if (experiment.together && !alike) {
      object.fail(object.place("together"), "methods of one model with the same flags and lengths", method.label);
    }
  }
}

void read_tradeoff(const RunFile& run, RunObject& object, RunExperiment& experiment) {
  const auto named = [&](const std::string& name, const std::string& place, bool cost) {
    const RunExperiment* other = run.experiment(name);
    const bool fits =
        other != nullptr && other->kind != BenchKind::tradeoff && (other->kind == BenchKind::cost) == cost;
    if (!fits)
      object.fail(place, fmt::format("the name of a {} experiment above", cost ? "cost" : "recall or perplexity"),
                  name);
  };
  experiment.cost = object.text("cost");
  named(experiment.cost, object.place("cost"), true);
  experiment.against = object.texts_or_none("against");
  if (experiment.against.empty()) object.fail(object.place("against"), "names of experiments", json::array());
  for (const std::string& name : experiment.against) named(name, object.place("against"), false);
}

BenchKind read_kind(RunObject& object) {
  const std::string text = object.text("bench");
  for (const BenchKind kind : kKinds) {
    if (text == name_of(kind)) return kind;
  }
  object.fail(object.place("bench"), "recall, perplexity, cost or tradeoff", text);
}

RunExperiment read_experiment(const RunFile& run, const json& value, const std::string& where) {
  RunObject object(value, run.path, where);
  RunExperiment experiment;
  experiment.kind = read_kind(object);
  experiment.name = object.name("name");
  if (run.experiment(experiment.name) != nullptr)
    object.fail(object.place("name"), "a name of its own", experiment.name);
  experiment.title = object.text_or("title", experiment.name);
  experiment.notes = object.texts_or_none("text");
  if (experiment.kind == BenchKind::tradeoff) {
    read_tradeoff(run, object, experiment);
  } else {
    const std::vector<std::size_t> lengths = object.counts("lengths", 1);
    read_list(object, "methods", [&](const json& entry, const std::string& place) {
      experiment.methods.push_back(read_use(run, experiment, lengths, entry, place));
    });
    experiment.flags = object.texts_or_none("flags");
  }
  if (experiment.kind == BenchKind::recall) read_recall(run, object, experiment);
  if (experiment.kind == BenchKind::perplexity) read_perplexity(run, object, experiment);
  if (experiment.kind == BenchKind::cost) experiment.decode = object.count_if_there("decode", 1);
  object.finish();
  return experiment;
}

}  // namespace

const char* name_of(BenchKind kind) {
  switch (kind) {
    case BenchKind::recall:
      return "recall";
    case BenchKind::perplexity:
      return "perplexity";
    case BenchKind::cost:
      return "cost";
    case BenchKind::tradeoff:
      return "tradeoff";
  }
  return "unknown";
}

const RunExperiment* RunFile::experiment(const std::string& name) const {
  for (const RunExperiment& each : experiments) {
    if (each.name == name) return &each;
  }
  return nullptr;
}

RunFile read_run_file(const std::filesystem::path& path) {
  RunFile run;
  run.path = path;
  run.folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  run.source = read_json_object(path, "run file", "correct the run file");
  RunObject object(run.source, path, "");
  run.title = object.text("title");
  run.notes = object.texts_or_none("text");
  run.models = read_paths(object, "models");
  if (run.models.empty()) object.fail("models", "at least one model folder", json::object());
  run.texts = read_paths(object, "texts");
  run.seed = object.count_if_there("seed", 0).value_or(run.seed);
  run.threads = object.count_if_there("threads", 1);
  read_list(object, "methods", [&](const json& value, const std::string& where) {
    run.methods.push_back(read_method(run, value, where));
  });
  read_list(object, "experiments", [&](const json& value, const std::string& where) {
    run.experiments.push_back(read_experiment(run, value, where));
  });
  object.finish();
  return run;
}

void check_inputs(const RunFile& run) {
  std::set<std::string> models;
  std::set<std::string> texts;
  for (const RunExperiment& experiment : run.experiments) {
    for (const MethodUse& use : experiment.methods) models.insert(run.methods[use.method].model);
    texts.insert(experiment.texts.begin(), experiment.texts.end());
    if (!experiment.book.empty()) texts.insert(experiment.book);
  }
  const auto check = [&](const std::string& place, const auto& open) {
    try {
      open();
    } catch (const InputError& error) {
      input_error("{}: {}: {}", run.path.string(), place, error.what());
    }
  };
  for (const std::string& model : models) {
    check("models." + model, [&] {
      read_model_config(run.folder / run.models.at(model));
      Checkpoint::open(run.folder / run.models.at(model));
      Tokenizer::open(run.folder / run.models.at(model));
    });
  }
  for (const std::string& text : texts) {
    check("texts." + text, [&] { open_text(run.folder / run.texts.at(text)); });
  }
}

}  // namespace memlane
