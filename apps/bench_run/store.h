#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "apps/bench_run/cells.h"

namespace memlane {

/// What is known of one cell: {"name", "command", "inputs", "status": "done" or "failed", "error", "wall_seconds",
/// "cpu_seconds", "peak_bytes", "output": the command's JSON}.
using CellRecord = nlohmann::json;

/// The results folder of a run. One process at a time may hold it.
class ResultsFolder {
 public:
  enum class Use {
    write,  ///< creates the folder if it is not there; throws if another run is writing there
    look    ///< changes nothing; a folder that is not there is an empty one
  };
  /// Reads the records that earlier runs left in results.json and cells/. A damaged record counts as missing. Throws
  /// InputError if the folder cannot be used.
  ResultsFolder(const std::filesystem::path& path, Use use);
  ~ResultsFolder();
  ResultsFolder(const ResultsFolder&) = delete;
  ResultsFolder& operator=(const ResultsFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path cell_file(const std::string& name, const std::string& extension) const;

  /// The record of a cell, up to date or not; null if there is none.
  const CellRecord* record(const std::string& name) const;
  /// A finished record of the same command over the same inputs, under whatever name; null if there is none.
  const CellRecord* record_of_same(const RunCell& cell) const;
  void save(const CellRecord& record);
  /// Writes a file of this folder: it appears whole or not at all.
  void write(const std::filesystem::path& file, std::string_view text) const;

 private:
  void hold();
  void take(const nlohmann::json& record);

  std::filesystem::path path_;
  int lock_ = -1;
  std::map<std::string, CellRecord> records_;
};

/// Why a record does not hold for a cell (any more), such as "its command line changed"; empty if it does.
std::string outdated(const CellRecord& record, const RunCell& cell);

}  // namespace memlane
