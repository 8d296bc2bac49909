#pragma once

#include <string>

namespace memlane {

/// Draws gnuplot's commands, which name the SVG file themselves. Throws InputError, naming --plot, if gnuplot is missing
/// or cannot write.
void draw_svg(const std::string& svg, const std::string& commands);

}  // namespace memlane
