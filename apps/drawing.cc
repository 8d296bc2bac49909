#include "apps/drawing.h"

#include <filesystem>
#include <fstream>

#include "apps/bench_run/child.h"
#include "apps/interrupt.h"
#include "kernels/error.h"

namespace memlane {

void draw_svg(const std::string& svg, const std::string& commands) {
  const std::filesystem::path script = svg + ".gnuplot", said = svg + ".errors";
  std::ofstream(script) << commands;
  const ChildResult result =
      run_child({.program = "gnuplot", .arguments = {script.string()}, .folder = {}, .out = said, .err = said},
                interrupt_flag(), [] {});
  std::error_code ignored;
  std::filesystem::remove(said, ignored);
  std::filesystem::remove(script, ignored);
  if (result.exit_code == 127) input_error("--plot {}: gnuplot is not installed; install gnuplot-nox", svg);
  if (result.exit_code != 0)
    input_error("--plot {}: gnuplot cannot write it; name a file in a folder that exists", svg);
}

}  // namespace memlane
