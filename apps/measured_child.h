#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace memlane {

/// What a child process found out.
struct MeasuredChild {
  nlohmann::json found;
  std::uint64_t peak_bytes = 0;  ///< the most that it had resident at once, as the system counted it
};

/// Runs `work` in a child process of its own and waits for it; the child does not outlive this process. There must be
/// no other threads yet. A stop signal that this process gets is passed on. None if it was interrupted. Throws
/// std::runtime_error if the child failed or was killed or could not be started, with the child's own message if it has
/// one; InputError if the child's own was one.
std::optional<MeasuredChild> run_in_child(const std::function<nlohmann::json()>& work);

}  // namespace memlane
