#include "runtime/model_folder.h"

#include <algorithm>
#include <system_error>

#include "kernels/error.h"

namespace memlane {

namespace {

namespace fs = std::filesystem;

bool lies_in(const fs::path& file, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), file.begin(), file.end()).first == folder.end();
}

bool stays_inside(const fs::path& file, const fs::path& model_dir) {
  std::error_code error;
  const fs::path target = fs::canonical(file, error);
  if (error) return false;
  const fs::path folder = fs::canonical(model_dir, error);
  if (error) return false;
  if (lies_in(target, folder)) return true;
  const fs::path snapshots = folder.parent_path();
  return snapshots.filename() == "snapshots" && lies_in(target, snapshots.parent_path() / "blobs");
}

}  // namespace

fs::path file_of_model(const fs::path& model_dir, std::string_view name) {
  const fs::path file = model_dir / name;
  std::error_code ignored;
  if (fs::exists(file, ignored) && !stays_inside(file, model_dir)) {
    input_error("{}: is a link out of the model's folder; put the file itself there", file.string());
  }
  return file;
}

}  // namespace memlane
