#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/error.h"
#include "memory/memory_file.h"
#include "memory/memory_file_writer.h"
#include "tests/temporary_folder.h"

namespace memlane {

using Bytes = std::vector<std::byte>;

/// A small memory file, and words to tell what happens to it. Token ids decide what a window's entries are, so that a
/// file can be checked against the ids in it.
class MemoryFileTest : public testing::Test {
 protected:
  static MemoryFileHeader header() {
    MemoryFileHeader header;
    header.model_fingerprint = "0123456789abcdef";
    header.tokenizer_fingerprint = "fedcba9876543210";
    header.model_name = "stories";
    header.shape = {{1, 3}, 2, 3, DType::bf16};
    header.window = 4;
    header.mem_positionals = false;
    header.compute = "float32";
    header.lookup = "IVF16,Flat";
    header.top_k = 7;
    header.settings = {{"rope_scaling", "yarn 4"}};
    return header;
  }

  static DocumentInfo document(std::string name, std::uint64_t tokens) {
    return {0, std::move(name), "aa55", 3 * tokens, tokens};
  }

  static Segment segment_of(std::span<const std::int32_t> ids) {
    const EntryShape shape = header().shape;
    CpuExec exec(1);
    Segment segment(shape, ids.size());
    std::vector<float> keys(ids.size() * shape.kv_heads * shape.head_dim);
    std::vector<float> values(keys.size());
    const std::array<std::size_t, 3> extents = {ids.size(), shape.kv_heads, shape.head_dim};
    for (std::size_t layer = 0; layer < shape.layers.size(); ++layer) {
      for (std::size_t i = 0; i < keys.size(); ++i) {
        const int id = ids[i / (shape.kv_heads * shape.head_dim)];
        keys[i] = static_cast<float>(1000 * static_cast<int>(layer) + 10 * id + static_cast<int>(i % 7));
        values[i] = -keys[i] / 3;
      }
      segment.fill(exec, layer, View<const float, 3>(keys.data(), extents),
                   View<const float, 3>(values.data(), extents));
    }
    return segment;
  }
  /// Appends a window of tokens first, first + 1, … to document 0 in parts of so many; returns these.
  static std::vector<Segment> append_parts(MemoryFileWriter& writer, std::int32_t first,
                                           const std::vector<std::size_t>& counts,
                                           const std::vector<SeenWindow>& seen = {}) {
    std::vector<std::int32_t> ids(std::accumulate(counts.begin(), counts.end(), std::size_t{0}));
    std::iota(ids.begin(), ids.end(), first);
    std::vector<Segment> segments;
    std::size_t begin = 0;
    for (const std::size_t count : counts) {
      segments.push_back(segment_of(std::span(ids).subspan(begin, count)));
      begin += count;
    }
    writer.append_window(0, ids, segments, seen);
    return segments;
  }

  /// Appends the window of tokens first, first + 1, …
  static void append(MemoryFileWriter& writer, std::uint32_t document, std::int32_t first, std::size_t count) {
    std::vector<std::int32_t> ids(count);
    std::iota(ids.begin(), ids.end(), first);
    writer.append_window(document, ids, segment_of(ids));
  }

  static std::vector<Bytes> blobs(std::string_view text) {
    std::vector<Bytes> result;
    for (int slot = 0; slot < 4; ++slot) {
      const std::string blob = fmt::format("{} {}", text, slot);
      const auto bytes = std::as_bytes(std::span(blob));
      result.emplace_back(bytes.begin(), bytes.end());
    }
    return result;
  }

  /// What a file holds, as "name: 0 1 2 3 | 4 5, index of 4 'text 0'." (a full stop: complete), one document a line.
  /// Of one that was dropped there must be nothing left but "name: dropped". Then "joint index of 6 in 0, 'text 0'" if
  /// there is one.
  static std::string contents(const MemoryFile& memory) {
    std::string text;
    for (const StoredDocument& document : memory.documents()) {
      text += document.info.name + ":";
      for (const StoredWindow& window : document.windows) {
        text += fmt::format("{}{}", window.index == 0 ? " " : " | ", fmt::join(window.ids, " "));
        if (!holds_entries_of(window)) text += " WITH WRONG ENTRIES";
      }
      if (!document.indexes.blobs.empty()) {
        const auto blob = document.indexes.blobs.front();
        text += fmt::format(", index of {} '{}'", document.indexes.entries_covered,
                            std::string_view(reinterpret_cast<const char*>(blob.data()), blob.size()));
      }
      if (document.dropped) text += " dropped";
      text += document.complete && !document.dropped ? ".\n" : "\n";
    }
    if (const StoredJointIndex& joint = memory.joint_index(); !joint.empty()) {
      const auto blob = joint.blobs.front();
      text += "joint index of";
      for (const CoveredDocument& covered : joint.documents) {
        text += fmt::format(" {} in {},", covered.entries, covered.document);
      }
      text += fmt::format(" '{}'\n", std::string_view(reinterpret_cast<const char*>(blob.data()), blob.size()));
    }
    return text;
  }
  static std::string contents(const std::filesystem::path& path) { return contents(MemoryFile::open(path)); }

  static bool holds_entries_of(const StoredWindow& window) {
    const Segment expected = segment_of(window.ids);
    return window.count == window.ids.size() && reinterpret_cast<std::uintptr_t>(window.entries) % 64 == 0 &&
           std::memcmp(window.entries, expected.bytes().data(), expected.bytes().size()) == 0;
  }

  using Step = std::function<void(MemoryFileWriter&)>;
  /// What is done to write a small file with something of everything: a complete document with an index, an unfinished
  /// one, two that are dropped, and joint indexes.
  static std::vector<Step> steps() {
    return {[](MemoryFileWriter& writer) { writer.begin_document(document("novel", 6)); },
            [](MemoryFileWriter& writer) { append(writer, 0, 0, 4); },
            [](MemoryFileWriter& writer) { writer.begin_document(document("play", 9)); },
            [](MemoryFileWriter& writer) { append(writer, 1, 50, 4); },
            [](MemoryFileWriter& writer) { append(writer, 0, 4, 2); },
            [](MemoryFileWriter& writer) { writer.store_indexes(0, 6, blobs("flat")); },
            [](MemoryFileWriter& writer) { writer.end_document(0); },
            [](MemoryFileWriter& writer) { writer.begin_document(document("draft", 1)); },
            [](MemoryFileWriter& writer) { append(writer, 2, 90, 1); },
            [](MemoryFileWriter& writer) { writer.store_indexes(2, 1, blobs("old")); },
            [](MemoryFileWriter& writer) { writer.end_document(2); },
            [](MemoryFileWriter& writer) { writer.begin_document(document("notes", 8)); },
            [](MemoryFileWriter& writer) {
              writer.drop_documents(std::vector<std::uint32_t>{2, 3});
            },
            [](MemoryFileWriter& writer) { writer.store_joint_index(std::vector<std::uint32_t>{0}, blobs("joint")); }};
  }
  /// So many of them are possible in the first version of the format.
  static constexpr std::size_t kStepsOfVersionOne = 7;
  static constexpr std::size_t kStepsOfVersionTwo = 13;
  static constexpr std::string_view kSmallFile =
      "novel: 0 1 2 3 | 4 5, index of 6 'flat 0'.\nplay: 50 51 52 53\ndraft: dropped\nnotes: dropped\n"
      "joint index of 6 in 0, 'joint 0'\n";

  static void write_small_file(const std::filesystem::path& path) {
    MemoryFileWriter writer = MemoryFileWriter::create(path, header());
    for (const Step& step : steps()) step(writer);
  }

  /// The contents after 0, 1, 2, … steps; no two are equal.
  static std::vector<std::string> states_after_steps(const std::filesystem::path& path) {
    MemoryFileWriter writer = MemoryFileWriter::create(path, header());
    std::vector<std::string> states = {contents(path)};
    for (const Step& step : steps()) {
      step(writer);
      states.push_back(contents(path));
    }
    return states;
  }

  static Bytes read(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    const auto bytes = std::as_bytes(std::span(text));
    return {bytes.begin(), bytes.end()};
  }
  static void write(const std::filesystem::path& path, std::span<const std::byte> bytes) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }

  /// The message of the InputError that an action throws; anything else fails the test.
  template <class Action>
  static std::string refusal(Action&& action) {
    try {
      action();
    } catch (const InputError& error) {
      return error.what();
    }
    ADD_FAILURE() << "was not refused";
    return "was not refused";
  }
  static std::string refusal_of(const std::filesystem::path& path) {
    return refusal([&] { MemoryFile::open(path); });
  }

  std::filesystem::path path() const { return folder_.path() / "book.mem"; }

  TemporaryFolder folder_;
};

}  // namespace memlane
