#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "memory/memory_file.h"
#include "runtime/safetensors.h"
#include "runtime/tokenizer.h"
#include "tests/apps/program.h"
#include "tests/golden_case.h"
#include "tests/runtime/test_files.h"
#include "tests/temporary_folder.h"

namespace memlane {

using Words = std::vector<std::string>;

inline Words operator+(Words left, const Words& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

/// English-like text that differs with the seed.
inline std::string story(std::size_t words, unsigned seed) {
  const std::vector<std::string> known = {"once", "upon", "a",   "time", "little", "girl", "dog",  "park", "saw",
                                          "big",  "tree", "sad", "mom",  "played", "with", "ball", "the",  "happy"};
  std::mt19937 random(seed);
  std::string text;
  for (std::size_t i = 0; i < words; ++i) {
    text += (i == 0 ? "" : " ") + known[random() % known.size()];
    if (random() % 9 == 0) text += ".";
  }
  return text;
}

/// Every file below a folder with its bytes.
inline std::map<std::string, std::string> contents_of(const std::filesystem::path& folder) {
  std::map<std::string, std::string> contents;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    contents[entry.path().string()] = entry.is_regular_file() ? read_text(entry.path()) : "";
  }
  return contents;
}

/// Tests that run the command in a folder of their own.
class CommandTest : public ::testing::Test {
 protected:
  /// A file in the test's folder.
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  std::string write(const std::string& name, std::string_view text) const {
    write_text(path(name), text);
    return path(name);
  }
  std::string write_ids(const std::string& name, const std::vector<std::int32_t>& ids) const {
    std::string text;
    for (const std::int32_t id : ids) text += std::to_string(id) + "\n";
    return write(name, text);
  }
  const std::filesystem::path& folder() const { return folder_.path(); }

  static std::string stories() { return testing::stories260k_folder().string(); }
  /// A copy of the model that a test may spoil.
  std::string copy_of_stories(const std::string& name) const {
    std::filesystem::copy(stories(), path(name));
    return path(name);
  }

  Words ingest_words(const std::string& memory, const Words& rest) const {
    return Words{"ingest", "--model", stories(), "--memory", path(memory), "--threads", "2", "--quiet"} + rest;
  }
  /// A memory with layers 2 and 3 and windows of 64 tokens.
  void ingest(const std::string& memory, const Words& documents, const Words& flags = {}) const {
    const Outcome outcome =
        run(ingest_words(memory, Words{"--mem-layers", "2,3", "--window", "64"} + flags + documents));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  }
  Words ask_words(const std::string& memory, const std::string& question, const Words& rest = {}) const {
    return Words{"ask",       "--model", stories(),      "--memory", path(memory),
                 "--threads", "2",       "--max-tokens", "12",       question} +
           rest;
  }
  std::string ask(const std::string& memory, const std::string& question, const Words& rest = {}) const {
    const Outcome outcome = run(ask_words(memory, question, rest));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return outcome.out;
  }
  static nlohmann::json json_of(const Words& words) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out, nullptr, false);
  }
  /// Runs `logits` and returns what it wrote.
  SafetensorsFile logits(const std::string& output, const Words& words) const {
    const Outcome outcome = run(Words{"logits", "--threads", "2", "--output", path(output)} + words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    return SafetensorsFile(path(output));
  }

  /// Expects exit code 2, nothing on standard output, one line on standard error that holds each of `named`, and the
  /// test's folder as it was.
  void expect_refused(const Invocation& invocation, const Words& named) const {
    const auto before = contents_of(folder());
    const Outcome outcome = run(invocation);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err << " signal " << outcome.signal;
    EXPECT_EQ(outcome.out, "");
    EXPECT_THAT(outcome.err, ::testing::StartsWith("memlane: "));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    for (const std::string& name : named) EXPECT_THAT(outcome.err, ::testing::HasSubstr(name));
    EXPECT_TRUE(contents_of(folder()) == before) << "files changed";
  }
  void expect_refused(const Words& words, const Words& named) const {
    expect_refused(Invocation{.arguments = words}, named);
  }

 private:
  TemporaryFolder folder_;
};

}  // namespace memlane
