#include "apps/bench_run/report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <fstream>
#include <map>
#include <set>

#include "apps/bench_run/plots.h"
#include "apps/bench_run/tables.h"
#include "kernels/cpu/micro_kernels.h"
#include "kernels/thread_pool.h"
#include "runtime/resources.h"

namespace memlane {

namespace {

using nlohmann::json;

constexpr const char* kStyle =
    "body{font:16px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222;background:#fff}"
    "h1,h2{line-height:1.2}h2{margin-top:2.5em;border-top:1px solid #ccc;padding-top:1em}"
    "figure{margin:1.5em 0}figure svg{width:100%;height:auto}figcaption{color:#555;font-size:14px}"
    ".grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:1em}.grid figure{margin:0}"
    "table{border-collapse:collapse;font-size:14px;margin:1em 0;display:block;overflow-x:auto}"
    "th,td{padding:2px 10px;text-align:right;border-bottom:1px solid #e4e4e4;white-space:nowrap}"
    "th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #888}"
    "summary{cursor:pointer;color:#0072b2}.swatch{display:inline-block;width:.8em;height:.8em;margin-right:.5em}"
    ".problem{background:#fff3e6;border-left:4px solid #d55e00;padding:.5em 1em}code{font-size:14px}";

std::string processor_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("model name")) continue;
    const std::size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::string paragraphs(const std::vector<std::string>& texts) {
  std::string html;
  for (const std::string& text : texts) html += "<p>" + escaped(text) + "</p>\n";
  return html;
}

/// The drawing itself, without what only a file of its own needs. Marks that gnuplot defines under the same names in
/// every plot get names of their own, since all plots stand in one page.
std::string inlined(const Figure& figure) {
  const std::size_t begin = figure.svg.find("<svg");
  if (begin == std::string::npos) return "";
  std::string svg = figure.svg.substr(begin);
  const std::string prefix = figure.file.substr(0, figure.file.find('.')) + "-";
  for (const std::string& before : {std::string("id=\""), std::string("id='"), std::string("href=\"#"),
                                    std::string("href='#"), std::string("url(#")}) {
    for (std::size_t at = svg.find(before); at != std::string::npos; at = svg.find(before, at + 1)) {
      svg.insert(at + before.size(), prefix);
    }
  }
  // As wide as it was drawn, or as the page if that is less.
  const std::string box = "viewBox=\"0 0 ";
  const std::size_t width = svg.find(box);
  if (width != std::string::npos) {
    const std::size_t from = width + box.size();
    svg.insert(4, fmt::format(" style=\"max-width:{}px\"", svg.substr(from, svg.find(' ', from) - from)));
  }
  return svg;
}

std::string figures_html(const std::vector<Figure>& figures, bool grid) {
  std::string html;
  for (const Figure& figure : figures) {
    const std::string drawing = inlined(figure);
    if (drawing.empty()) continue;
    html += "<figure>\n" + drawing + "<figcaption>" + escaped(figure.caption) + "</figcaption>\n</figure>\n";
  }
  return grid && !html.empty() ? "<div class=\"grid\">\n" + html + "</div>\n" : html;
}

std::string problems_html(const Measured& measured) {
  std::string html;
  if (!measured.missing.empty()) {
    html += fmt::format("<p class=\"problem\">Not measured yet: {}.</p>\n",
                        escaped(fmt::format("{}", fmt::join(measured.missing, ", "))));
  }
  for (const Measured::Failure& failure : measured.failures) {
    html += fmt::format("<p class=\"problem\">Failed: {}: {}</p>\n", escaped(failure.cell), escaped(failure.error));
  }
  return html;
}

std::string experiment_html(const RunFile& run, const RunExperiment& experiment, const Measured& measured,
                            const std::vector<Figure>& figures) {
  std::string html = fmt::format("<h2 id=\"{}\">{}</h2>\n", experiment.name, escaped(experiment.title));
  html += paragraphs(experiment.notes) + problems_html(measured);
  const bool grid = experiment.kind == BenchKind::cost || experiment.kind == BenchKind::tradeoff;
  html += figures_html(figures, grid);
  switch (experiment.kind) {
    case BenchKind::recall:
      return html + recall_tables(run, measured.recall);
    case BenchKind::perplexity:
      return html + perplexity_tables(run, measured.perplexity) + comparison_table(measured.comparisons);
    case BenchKind::cost:
      return html + cost_table(run, measured.cost);
    case BenchKind::tradeoff:
      return html;
  }
  return html;
}

std::string methods_table(const RunFile& run) {
  std::string html =
      "<table><thead><tr><th>method</th><th>as memlane bench takes it</th><th>model</th></tr></thead><tbody>\n";
  for (std::size_t i = 0; i < run.methods.size(); ++i) {
    const RunMethod& method = run.methods[i];
    std::string words = "--methods " + method.method;
    for (const std::string& flag : method.flags) words += " " + flag;
    html += fmt::format(
        "<tr><td><span class=\"swatch\" "
        "style=\"background:{}\"></span>{}</td><td><code>{}</code></td><td>{}</td></tr>\n",
        colour_of(i), escaped(method.label), escaped(words), escaped(method.model));
  }
  return html + "</tbody></table>\n";
}

}  // namespace

json machine_facts(const RunFile& run) {
  std::ifstream in("/proc/meminfo");
  std::string key;
  std::uint64_t kibibytes = 0;
  in >> key >> kibibytes;
  return {{"processor", processor_name()},
          {"threads", run.threads.value_or(available_threads())},
          {"instruction_set", name_of(detect_instruction_set())},
          {"memory_bytes", kibibytes * 1024}};
}

json results_json(const RunFile& run, const std::vector<RunCell>& cells, const ResultsFolder& results) {
  json records = json::array();
  for (const RunCell& cell : cells) {
    if (const CellRecord* record = results.record(cell.name)) records.push_back(*record);
  }
  return {{"memlane", MEMLANE_VERSION},
          {"title", run.title},
          {"machine", machine_facts(run)},
          {"run_file", run.source},
          {"cells", records}};
}

std::string report_html(const RunFile& run, const std::vector<Measured>& all,
                        const std::vector<std::vector<Figure>>& figures) {
  std::string html =
      "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n"
      "<meta name=\"viewport\" content=\"width=device-width\" />\n";
  html += fmt::format("<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n<h1>{0}</h1>\n", escaped(run.title),
                      kStyle);
  html += paragraphs(run.notes) + "<ul>\n";
  for (const RunExperiment& experiment : run.experiments) {
    html += fmt::format("<li><a href=\"#{}\">{}</a></li>\n", experiment.name, escaped(experiment.title));
  }
  html += "<li><a href=\"#about\">Methods and machine</a></li>\n</ul>\n";
  for (std::size_t i = 0; i < run.experiments.size(); ++i) {
    html += experiment_html(run, run.experiments[i], all[i], figures[i]);
  }
  html += "<h2 id=\"about\">Methods and machine</h2>\n" + methods_table(run);
  const json facts = machine_facts(run);
  html +=
      fmt::format("<p>memlane {}; {}; {} threads; {}; {} of memory; seed {}. All numbers are in results.json.</p>\n",
                  MEMLANE_VERSION, escaped(facts["processor"].get<std::string>()), facts["threads"].get<std::size_t>(),
                  escaped(facts["instruction_set"].get<std::string>()),
                  bytes_text(facts["memory_bytes"].get<std::uint64_t>()), run.seed);
  return html + "</body>\n</html>\n";
}

std::string write_report(const RunFile& run, const std::vector<RunCell>& cells, const ResultsFolder& results) {
  results.write(results.path() / "results.json",
                results_json(run, cells, results).dump(1, ' ', false, json::error_handler_t::replace) + "\n");
  std::vector<Measured> all;
  for (std::size_t i = 0; i < run.experiments.size(); ++i) all.push_back(measured(run, i, cells, results));
  Plotter plotter(results);
  std::vector<std::vector<Figure>> figures;
  for (std::size_t i = 0; i < run.experiments.size(); ++i) figures.push_back(draw_figures(run, i, all, plotter));
  results.write(results.path() / "report.html", report_html(run, all, figures));
  return plotter.problem();
}

}  // namespace memlane
