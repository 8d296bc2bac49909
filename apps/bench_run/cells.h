#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "apps/bench_run/run_file.h"

namespace memlane {

/// One method at one length (over one text) of one experiment, or all its methods together: what one command measures.
struct RunCell {
  std::string name;                           ///< of its files; unique
  std::size_t experiment = 0;                 ///< index into RunFile::experiments
  std::vector<std::size_t> methods;           ///< indices into RunFile::methods, all of one model
  std::size_t length = 0;                     ///< tokens
  std::string text;                           ///< a key of RunFile::texts, or empty
  std::vector<std::string> command;           ///< arguments of memlane; paths are relative to the run file's folder
  std::map<std::string, std::string> inputs;  ///< "model", "text" to the fingerprint of its contents
  double work = 0;                            ///< seconds that the machine's speed suggests
};

/// All cells, in the order in which they run: experiment by experiment, short lengths first.
/// Throws InputError if two would have the same name.
std::vector<RunCell> expand(const RunFile& run);

/// Reads every model and text that is used and fills in `inputs`.
void take_fingerprints(const RunFile& run, std::vector<RunCell>& cells);

/// Fills in `work`, from the models' sizes and a few milliseconds of each kind of work.
void estimate_work(const RunFile& run, std::vector<RunCell>& cells);

}  // namespace memlane
