#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace memlane {

/// What a child process found out.
struct ChildResult {
  nlohmann::json found;
  std::uint64_t peak_bytes = 0;  ///< the most that it had resident at once, as the system counted it
};

/// Runs `work` in a child process of its own and waits for it. There must be no other threads yet. A stop signal that
/// this process gets is passed on. None if it was interrupted. Throws InputError that names `what` if the child failed,
/// with the child's own message if it was an InputError.
std::optional<ChildResult> run_in_child(const std::string& what, const std::function<nlohmann::json()>& work);

}  // namespace memlane
