#pragma once

#include <string>

#include "tests/apps/command_test.h"

namespace memlane {

/// Tests that run a run file of their own.
class BenchRun : public CommandTest {
 protected:
  /// Two methods at two lengths, a second or less.
  nlohmann::json small() const {
    return {{"title", "A <small> run & its report"},
            {"models", {{"stories", stories()}}},
            {"texts", {{"story", write("story.txt", story(2000, 5))}}},
            {"seed", 3},
            {"threads", 1},
            {"methods",
             {{{"label", "none"}}, {{"label", "memory"}, {"flags", {"--mem-layers", "2,3", "--window", "256"}}}}},
            {"experiments",
             {{{"bench", "recall"},
               {"name", "keys"},
               {"title", "Pass keys"},
               {"text", "What the plot shows."},
               {"book", "story"},
               {"trials", 2},
               {"lengths", {384, 512}},
               {"methods", {"none", "memory"}}}}}};
  }
  Words words(const nlohmann::json& run_file, const std::string& out, const Words& rest = {}) const {
    return Words{"bench", "run", write("run.json", run_file.dump()), "--out", path(out)} + rest;
  }
  Outcome bench(const nlohmann::json& run_file, const std::string& out, const Words& rest = {}) const {
    return run(words(run_file, out, rest));
  }
  nlohmann::json cell(const std::string& out, const std::string& name) const {
    return nlohmann::json::parse(read_text(path(out) + "/cells/" + name + ".json"), nullptr, false);
  }
  nlohmann::json results(const std::string& out) const {
    return nlohmann::json::parse(read_text(path(out) + "/results.json"), nullptr, false);
  }
  /// Gives a stored cell a time that no measurement has, so that measuring it again shows.
  void mark(const std::string& out, const std::string& name) const {
    nlohmann::json record = cell(out, name);
    record["wall_seconds"] = 12345.0;
    write_text(path(out) + "/cells/" + name + ".json", record.dump());
  }
  bool marked(const std::string& out, const std::string& name) const {
    return cell(out, name)["wall_seconds"] == 12345.0;
  }
  /// What python3's XML parser says about a file; empty if it is well-formed, or there is no python3.
  static std::string xml_error(const std::string& file) {
    if (!std::filesystem::exists("/usr/bin/python3")) return "";
    const std::string code = "import sys, xml.etree.ElementTree as t; t.parse(sys.argv[1])";
    const Outcome outcome = run(Invocation{.arguments = {"-c", code, file}, .program = "/usr/bin/python3"});
    return outcome.exit_code == 0 ? "" : "no: " + outcome.err;
  }
};

}  // namespace memlane
