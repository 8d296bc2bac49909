#include "apps/bench_run/store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <system_error>

#include "kernels/error.h"

namespace memlane {

namespace {

using nlohmann::json;

/// What a file holds, or a discarded value if that is no JSON.
json parsed(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  return json::parse(text, nullptr, false);
}

bool is_record(const json& record) {
  if (!record.is_object() || !record.contains("name") || !record["name"].is_string()) return false;
  if (!record.contains("command") || !record.contains("inputs") || !record.contains("status")) return false;
  if (record["status"] == "failed") return record.contains("error") && record["error"].is_string();
  return record["status"] == "done" && record.contains("output") && record["output"].is_object() &&
         record.contains("wall_seconds") && record["wall_seconds"].is_number() && record.contains("peak_bytes") &&
         record["peak_bytes"].is_number_unsigned() && record["output"].contains("cells") &&
         record["output"]["cells"].is_array();
}

}  // namespace

ResultsFolder::ResultsFolder(const std::filesystem::path& path, Use use) : path_(path) {
  if (use == Use::write) hold();
  const json results = parsed(path_ / "results.json");
  if (results.is_object() && results.contains("cells") && results["cells"].is_array()) {
    for (const json& record : results["cells"]) take(record);
  }
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(path_ / "cells", missing)) {
    if (entry.path().extension() == ".json") take(parsed(entry.path()));
  }
}

void ResultsFolder::hold() {
  std::error_code error;
  std::filesystem::create_directories(path_ / "cells", error);
  if (error) {
    input_error("--out {}: cannot create the folder: {}; choose a folder you may write to", path_.string(),
                error.message());
  }
  lock_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) {
    input_error("--out {}: cannot open the folder: {}; choose one you may write to", path_.string(),
                std::strerror(errno));
  }
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    input_error("--out {}: another run is writing there; wait for it, or choose another folder", path_.string());
  }
}

ResultsFolder::~ResultsFolder() {
  if (lock_ >= 0) ::close(lock_);
}

std::filesystem::path ResultsFolder::cell_file(const std::string& name, const std::string& extension) const {
  return path_ / "cells" / (name + extension);
}

void ResultsFolder::take(const json& record) {
  if (is_record(record)) records_[record["name"].get<std::string>()] = record;
}

const CellRecord* ResultsFolder::record(const std::string& name) const {
  const auto found = records_.find(name);
  return found == records_.end() ? nullptr : &found->second;
}

const CellRecord* ResultsFolder::record_of_same(const RunCell& cell) const {
  for (const auto& [name, record] : records_) {
    if (record["status"] == "done" && outdated(record, cell).empty()) return &record;
  }
  return nullptr;
}

void ResultsFolder::save(const CellRecord& record) {
  const std::string name = record.at("name").get<std::string>();
  write(cell_file(name, ".json"), record.dump(1, ' ', false, json::error_handler_t::replace) + "\n");
  records_[name] = record;
}

void ResultsFolder::write(const std::filesystem::path& file, std::string_view text) const {
  const std::filesystem::path temporary = file.string() + ".tmp";
  std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(temporary, file, error);
  if (!out || error) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    input_error("{}: cannot write it: {}; free disk space or choose another folder, then run the command again",
                file.string(), error ? error.message() : std::strerror(errno));
  }
}

std::string outdated(const CellRecord& record, const RunCell& cell) {
  if (record["status"] != "done") return "it failed before";
  if (record["command"] != json(cell.command)) return "its command line changed";
  const auto differs = [&](const char* input) {
    const auto now = cell.inputs.find(input);
    const json was =
        record["inputs"].is_object() && record["inputs"].contains(input) ? record["inputs"][input] : json();
    return (now == cell.inputs.end() ? json() : json(now->second)) != was;
  };
  if (differs("model")) return "its model changed";
  if (differs("text")) return "its text changed";
  return "";
}

}  // namespace memlane
