#pragma once

#include <filesystem>
#include <string_view>

namespace memlane {

/// The file `name` of a model's folder. A folder comes from strangers, so its files must lie in it: a link that leads
/// out of it is refused, before anything is read. The exception is the cache of Hugging Face, where
/// snapshots/REVISION/ holds links to ../../blobs/. The folder itself may be a link. A file that is missing is no error
/// here. Throws InputError that names the file.
std::filesystem::path file_of_model(const std::filesystem::path& model_dir, std::string_view name);

}  // namespace memlane
