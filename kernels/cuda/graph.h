#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "kernels/cuda/exec.h"

namespace memlane {

/// Work of a GPU that was queued once and is launched as a whole from then on, with everything that its kernels were
/// given by value: arguments, addresses, grids. What is in memory is read anew each time.
class CudaGraph {
 public:
  /// exec: must outlive the graph, which goes to its queue.
  explicit CudaGraph(CudaExec& exec);
  ~CudaGraph();
  CudaGraph(CudaGraph&&) noexcept;
  CudaGraph(const CudaGraph&) = delete;

  /// What is queued on the exec from here on is recorded and not run. Until end() or forget() nothing may be allocated
  /// on the device or waited for, and host memory that is copied from or to has to be pinned.
  void begin();
  void end();              ///< ends the recording and makes the graph of it
  void forget() noexcept;  ///< ends a recording that is under way; there is no graph afterwards
  void launch();           ///< queues the work of the graph that there is

 private:
  struct Internals;
  std::unique_ptr<Internals> internals_;
};

/// How often steps were done in which way; for tests and reports.
struct StepCounts {
  std::size_t rehearsed = 0, recorded = 0, replayed = 0;
  std::string refusal;  ///< why graphs are not used any more; empty as long as they are
};

/// Decides how the steps of something that repeats itself are done. A step is work that is queued with launches that
/// are the same as long as `Key` is, which has to hold everything that they are given by value and that may change.
///
/// The first step of a key is queued as it is: everything that has to be made for it is then there. The second is
/// recorded and launched as a graph, further ones are launched. With another key the graph is forgotten. If a graph
/// cannot be made or launched, no step is done from then on.
/// Graph: CudaGraph, or a model of it in tests.
template <class Graph, class Key>
class StepReplay {
 public:
  /// Does a step; false if steps are not done (any more), then nothing has been. queue(): queues the step. Errors of it
  /// are passed on, but for a DeviceError while it is recorded, which counts as a graph that cannot be made.
  template <class Queue>
  bool run(Graph& graph, const Key& key, StepCounts& counts, const Queue& queue) {
    if (!counts.refusal.empty()) return false;
    if (!(key_ == key)) {
      graph.forget();
      ready_ = false;
      key_.reset();
      queue();
      key_ = key;  // only now: a rehearsal that failed is none
      ++counts.rehearsed;
      return true;
    }
    try {
      if (!ready_) {
        record(graph, queue);
        ++counts.recorded;
      }
      graph.launch();
    } catch (const DeviceError& error) {
      graph.forget();
      key_.reset();
      counts.refusal = error.what();
      return false;
    }
    ++counts.replayed;
    return true;
  }

 private:
  template <class Queue>
  void record(Graph& graph, const Queue& queue) {
    try {
      graph.begin();
      queue();
      graph.end();
      ready_ = true;
    } catch (...) {
      graph.forget();
      throw;
    }
  }

  std::optional<Key> key_;  // of the last step
  bool ready_ = false;      // whether its graph is there
};

}  // namespace memlane
