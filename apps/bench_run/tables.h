#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "apps/bench_run/measured.h"
#include "apps/bench_run/run_file.h"

namespace memlane {

/// Text for HTML and XML.
std::string escaped(std::string_view text);

/// HTML tables of every number of an experiment: first methods against lengths, then, folded away, the rest.
std::string recall_tables(const RunFile& run, const std::vector<RecallPoint>& points);
std::string perplexity_tables(const RunFile& run, const std::vector<PerplexityPoint>& points);
/// How far the modes of dynamic scalings are from each other; empty without comparisons.
std::string comparison_table(const std::vector<nlohmann::json>& comparisons);
std::string cost_table(const RunFile& run, const std::vector<CostPoint>& points);

}  // namespace memlane
