#pragma once

#include <string>
#include <vector>

#include "apps/bench_run/figures.h"
#include "apps/bench_run/measured.h"
#include "apps/bench_run/run_file.h"

namespace memlane {

/// The machine and the program, for results.json and the report.
nlohmann::json machine_facts(const RunFile& run);

/// results.json: {"memlane", "title", "machine", "run_file", "cells": every record of this run, in its order}.
nlohmann::json results_json(const RunFile& run, const std::vector<RunCell>& cells, const ResultsFolder& results);

/// One page that needs nothing beside it: plots inside, no scripts. Well-formed XML (XHTML syntax in HTML 5).
std::string report_html(const RunFile& run, const std::vector<Measured>& all,
                        const std::vector<std::vector<Figure>>& figures);

/// Draws all plots and writes results.json, the SVG files and report.html. Returns what could not be drawn and why,
/// empty if all is well.
std::string write_report(const RunFile& run, const std::vector<RunCell>& cells, const ResultsFolder& results);

}  // namespace memlane
