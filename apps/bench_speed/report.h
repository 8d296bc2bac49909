#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/speed.h"

namespace memlane {

/// One cell: its times, rates, floor and stages.
nlohmann::json json_of(const SpeedCell& cell, Precision precision);

/// Medians of the limits that were measured beside the cells.
nlohmann::json limits_json(const std::vector<SpeedCell>& cells);

/// A line for each cell and one for the machine.
std::string table_of(const std::vector<SpeedCell>& cells, Precision precision);

/// gnuplot's commands for an SVG, to `file`: each cell's time by stage, as shares, with its floor.
std::string plot_of(const std::vector<SpeedCell>& cells, Precision precision, const std::string& title,
                    const std::string& file);

}  // namespace memlane
