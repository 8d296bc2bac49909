#pragma once

#include <atomic>

namespace memlane {

/// A flag that Ctrl-C (SIGINT) and SIGTERM set, from the first call of this function on. A second signal ends the
/// process at once.
const std::atomic<bool>& interrupt_flag();

}  // namespace memlane
